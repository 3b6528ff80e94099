"""What only an accelerator can show: a DiT-S/2 in bf16 with averages and torch.compile, fed with digits."""

import math

import pytest
import torch
from tiny_models import Losses, adam, autoencoder_task, diffusion_task, digit_data, fit

from ldm import checkpoints
from ldm.autoencoders import KLAutoencoder
from ldm.callbacks import EMA, LatentNormalisation, NoiseLevelLoss, SampleGrid, Throughput
from ldm.conditioners import Conditioner, Label
from ldm.diffusion.samplers import DDIM
from ldm.networks import DiT

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = {"accelerator": "cuda", "devices": 1}


def dit_s_2(**options):
    """DiT-S/2 on latents of 4 x 32 x 32 (of 64-pixel images, to keep the untrained autoencoder cheap)."""
    torch.manual_seed(0)
    net = DiT(32, 4, patch_size=2, width=384, depth=12, num_heads=6)
    autoencoder = KLAutoencoder(1, 4, channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    autoencoder.set_statistics(0.0, 1.0, 1)
    settings = {"net": net, "autoencoder": autoencoder, "conditioner": Conditioner([Label(10, 384)])}
    return diffusion_task(**settings, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-4), lr_scheduler=None, **options)


@pytest.mark.parametrize("compile", [False, True])
def test_a_dit_s_2_in_bf16_learns_and_its_average_is_float32(few_digits, tmp_path, compile):
    task, losses = dit_s_2(compile=compile), Losses()
    callbacks = [
        EMA((0.9, 0.999)),
        SampleGrid(every_n_steps=1000, classes=[1, 2], rows=1, sampler=DDIM(4)),
        NoiseLevelLoss(2, 5),
        Throughput(5),
        losses,
    ]
    options = {**CUDA, "precision": "bf16-mixed", "limit_val_batches": 1, "val_check_interval": 5}
    data = digit_data(few_digits, size=64)
    trainer = fit(task, data, tmp_path, 30, callbacks, save={"every_n_steps": 15}, **options)
    figures = list(losses.by_batch.values())
    assert all(map(math.isfinite, figures))
    assert sum(figures[-5:]) < sum(figures[:5])
    assert trainer.callback_metrics["val/loss"] != trainer.callback_metrics["val/loss_ema0.999"]
    for average in task.averages.values():
        assert average.num_updates == 30
        assert all(w.dtype == torch.float32 and w.isfinite().all() for w in average.weights.values())
    assert (tmp_path / "pictures/samples-00000030.png").is_file()
    assert checkpoints.read(checkpoints.newest(tmp_path))["global_step"] == 30


def test_stopped_and_resumed_it_goes_on_as_if_it_had_not_stopped(few_digits, tmp_path):
    """Some kernels add in no fixed order, so equal up to rounding; the samples and the noise are the same."""
    whole, first, second = Losses(), Losses(), Losses()
    for run, steps, losses in (("whole", 8, whole), ("parts", 4, first), ("parts", 8, second)):
        fit(diffusion_task(), digit_data(few_digits), tmp_path / run, steps, [EMA((0.9,)), losses], **CUDA)
    assert list(second.by_batch) == [4, 5, 6, 7]
    assert {**first.by_batch, **second.by_batch} == pytest.approx(whole.by_batch, rel=1e-4)


def test_an_autoencoder_in_bf16_ends_with_unit_latents(few_digits, tmp_path):
    task, losses = autoencoder_task(optimizer=adam, lr_scheduler=None), Losses()
    options = {**CUDA, "precision": "bf16-mixed"}
    fit(task, digit_data(few_digits), tmp_path, 20, [EMA((0.9,)), LatentNormalisation(), losses], **options)
    assert all(map(math.isfinite, losses.by_batch.values()))
    data = digit_data(few_digits)
    data.setup("fit")
    images = torch.cat(list(data.plain_images(1000)))
    task.cpu()
    with torch.no_grad(), task.averaged():
        latents = task.autoencoder.encode(images).sample(torch.randn(60, 2, 8, 8))
    assert latents.mean((0, 2, 3)).abs().max() < 0.1
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.1
