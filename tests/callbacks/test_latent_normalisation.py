"""Latent statistics: measured at the end of an autoencoder's training, before the last checkpoint."""

import pytest
import torch
from tiny_models import autoencoder_task, diffusion_task, digit_data, fit

from ldm import checkpoints
from ldm.callbacks import EMA, LatentNormalisation
from ldm.errors import UserError


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
    assert earlier["autoencoder.latent_samples"] == 0  # not the 10 that tiny_autoencoder pretends


def test_fewer_samples_spread_over_the_set(few_digits, tmp_path):
    task = autoencoder_task()
    fit(task, digit_data(few_digits), tmp_path, 2, [LatentNormalisation(20)])
    assert task.autoencoder.latent_samples == 20


def test_at_least_fifty_thousand_images_are_asked_for():
    assert LatentNormalisation().num_samples >= 50_000


def test_the_same_run_again_measures_the_same_bits(few_digits, tmp_path):
    """And measuring once more, after more training steps were read, changes nothing either."""
    tasks = [autoencoder_task() for _ in range(2)]
    for i, task in enumerate(tasks):
        trainer = fit(task, digit_data(few_digits), tmp_path / str(i), 3, [EMA((0.9,)), LatentNormalisation()])
    one, other = (task.autoencoder for task in tasks)
    assert torch.equal(one.latent_mean, other.latent_mean)
    assert torch.equal(one.latent_std, other.latent_std)
    before = other.fingerprint()
    LatentNormalisation().on_train_end(trainer, tasks[1])
    assert other.fingerprint() == before


def test_latents_that_are_no_numbers_are_one_sentence(few_digits, tmp_path):
    task = autoencoder_task()
    trainer = fit(task, digit_data(few_digits), tmp_path, 1)
    with torch.no_grad():
        task.autoencoder.quant_conv.bias.fill_(float("nan"))
    with pytest.raises(UserError, match=r"cannot be measured\. The latents hold NaN or Inf"):
        LatentNormalisation().on_train_end(trainer, task)
    assert task.autoencoder.latent_samples == 10


def test_a_denoiser_is_left_alone(few_digits, tmp_path):
    task = diffusion_task()
    before = task.autoencoder.fingerprint()
    fit(task, digit_data(few_digits), tmp_path, 1, [LatentNormalisation()])
    assert task.autoencoder.fingerprint() == before
