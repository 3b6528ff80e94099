"""Sample grids drawn by a decoder of the model's latents, which is not the model's own."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import diffusion_task, digit_data, fit

from ldm.autoencoders import TinyDecoder
from ldm.callbacks import SampleGrid
from ldm.diffusion.samplers import DDIM
from ldm.errors import UserError
from ldm.sampling import Request, sample_images


def grid(decoder):
    return SampleGrid(every_n_steps=100, classes=[7], rows=1, sampler=DDIM(2), guidance_scale=1.0, decoder=decoder)


def test_the_decoder_draws_the_grid(few_digits, tmp_path):
    task = diffusion_task()
    decoder = TinyDecoder(task.autoencoder, channels=4, num_res_blocks=1).requires_grad_(False)
    fit(task, digit_data(few_digits), tmp_path, 1, [grid(decoder)])
    image = sample_images(task.eval(), Request([0], {"labels": [7]}), DDIM(2), decode=decoder.decode)[0, 0]
    expected = ((image.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(int)
    shown = np.asarray(Image.open(tmp_path / "pictures" / "samples-00000001.png").convert("L")).astype(int)
    assert np.abs(shown[22 : 22 + 64 : 4, 2 : 2 + 64 : 4] - expected).max() <= 1


def test_a_decoder_of_other_latents_is_refused(few_digits, tmp_path):
    task, other = diffusion_task(), diffusion_task().autoencoder
    with torch.no_grad():
        next(other.parameters()).add_(1)
    wanted, given = task.autoencoder.fingerprint()[:12], other.fingerprint()[:12]
    with pytest.raises(UserError, match=f"{wanted}.*{given}"):
        fit(task, digit_data(few_digits), tmp_path, 1, [grid(TinyDecoder(other, channels=4, num_res_blocks=1))])
