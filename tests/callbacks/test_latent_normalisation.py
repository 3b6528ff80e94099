"""Latent statistics: measured at the end of an autoencoder's training, before the last checkpoint."""

import pytest
import torch
from tiny_models import autoencoder_task, diffusion_task, digit_data, fit

from ldm import checkpoints
from ldm.callbacks import EMA, LatentNormalisation


def training_images(few_digits):
    data = digit_data(few_digits)
    data.setup("fit")
    return torch.cat(list(data.plain_images(10**6)))


@pytest.mark.parametrize("decays", [(), (0.9, 0.5)])
def test_they_are_those_of_the_training_set_under_the_first_average(few_digits, tmp_path, decays):
    task = autoencoder_task()
    fit(task, digit_data(few_digits), tmp_path, 6, [EMA(decays), LatentNormalisation()])
    images, autoencoder = training_images(few_digits), task.autoencoder
    assert len(images) == 60
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), task.averaged():
        posteriors = [autoencoder.posterior(part) for part in images.split(12)]
        # A hundred samples of each posterior stand for all of them.
        draws = [p.sample(torch.randn(p.mean.shape, generator=generator)) for p in posteriors for _ in range(100)]
        raw = torch.cat(draws).double()
        torch.testing.assert_close(autoencoder.latent_mean.double(), raw.mean((0, 2, 3)), rtol=0, atol=5e-3)
        torch.testing.assert_close(autoencoder.latent_std.double(), raw.std((0, 2, 3)), rtol=5e-3, atol=0)
        assert autoencoder.latent_samples == 60
        latents = autoencoder.encode(images).sample(torch.randn(60, 2, 8, 8, generator=generator))
        assert latents.mean((0, 2, 3)).abs().max() < 0.05
        assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.05
        assert torch.allclose(
            autoencoder.decode(autoencoder.encode(images).mode),
            autoencoder.reconstruct(autoencoder.posterior(images).mode),
            atol=1e-5,
        )
    saved = checkpoints.read(checkpoints.newest(tmp_path))["state_dict"]
    assert torch.equal(saved["autoencoder.latent_mean"], autoencoder.latent_mean)
    assert saved["autoencoder.latent_samples"] == 60
    earlier = checkpoints.read(checkpoints.listed(tmp_path)[-2])["state_dict"]
    assert earlier["autoencoder.latent_samples"] == 10  # what tiny_autoencoder pretends


def test_fewer_samples_spread_over_the_set(few_digits, tmp_path):
    task = autoencoder_task()
    fit(task, digit_data(few_digits), tmp_path, 2, [LatentNormalisation(20)])
    assert task.autoencoder.latent_samples == 20


def test_a_denoiser_is_left_alone(few_digits, tmp_path):
    task = diffusion_task()
    before = task.autoencoder.fingerprint()
    fit(task, digit_data(few_digits), tmp_path, 1, [LatentNormalisation()])
    assert task.autoencoder.fingerprint() == before
