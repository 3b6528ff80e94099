"""AutoencoderTask: what a step computes, what it refuses, what validation measures."""

import pytest
import torch
from tiny_models import Losses, autoencoder_task, digit_data, fit
from torchmetrics.functional.image import peak_signal_noise_ratio

from ldm.callbacks import EMA
from ldm.data import LatentContract
from ldm.errors import UserError
from ldm.tasks.base import BatchNoise


def test_the_first_step_is_the_loss_written_out(few_digits, tmp_path):
    losses = Losses()
    fit(autoencoder_task(seed=3), digit_data(few_digits), tmp_path, 1, [losses])
    autoencoder, data = autoencoder_task(seed=3).autoencoder, digit_data(few_digits)
    data.setup("fit")
    images = next(iter(data.train_dataloader()))["images"]
    with torch.no_grad():
        posterior = autoencoder.posterior(images)
        sample = posterior.sample(BatchNoise(0, 0, torch.arange(12), 12).normal(2, 8, 8))
        error = (autoencoder.reconstruct(sample) - images).square().mean()
        expected = error + 1e-3 * posterior.kl().mean() / (16 * 16)
    assert losses.by_batch[0] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_validation_measures_raw_and_averaged_weights(few_digits, tmp_path, precision):
    task = autoencoder_task(lr_scheduler=None)
    options = {"precision": precision, "limit_val_batches": 1.0, "val_check_interval": 5}
    trainer = fit(task, digit_data(few_digits), tmp_path, 5, [EMA((0.9,), warmup=False)], **options)
    terms = ["reconstruction", "kl", "total", "psnr", "ssim"]
    for channel in (0, 1):
        terms += [f"latent_std/{channel}", f"latent_kurtosis/{channel}"]
        terms += [f"latent_spectrum/{channel}/{band}" for band in range(4)]
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    assert set(logged) == {f"val/{name}{suffix}" for name in terms for suffix in ("", "_ema0.9")}
    assert all(logged[f"val/{name}"] != logged[f"val/{name}_ema0.9"] for name in terms)
    alone = autoencoder_task()
    alone.load_state_dict(task.averages["0.9"].weights, strict=False)
    (measured,) = trainer.validate(alone, digit_data(few_digits), verbose=False)
    for name in terms:
        assert measured[f"val/{name}"] == pytest.approx(logged[f"val/{name}_ema0.9"], rel=1e-5)


def test_psnr_is_over_the_whole_set_whatever_the_batches(few_digits, tmp_path):
    trainer = fit(autoencoder_task(), digit_data(few_digits), tmp_path, 1)
    trainer.limit_val_batches = 1.0
    task, figures = autoencoder_task(), []
    for batch_size in (10, 3):
        trainer = fit(task, digit_data(few_digits, batch_size=batch_size), tmp_path / "v", 0, limit_val_batches=1.0)
        figures += trainer.validate(task, digit_data(few_digits, batch_size=batch_size), verbose=False)
    data = digit_data(few_digits, batch_size=10)
    data.setup("validate")
    (batch,) = list(data.val_dataloader())
    with torch.no_grad():
        reconstructed = task.autoencoder.reconstruct(task.autoencoder.posterior(batch["images"]).mode).clamp(-1, 1)
    expected = peak_signal_noise_ratio(reconstructed, batch["images"], data_range=2.0).item()
    for figure in figures:
        assert figure["val/psnr"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [({"channels": 3}, r"3 channel\(s\) and the autoencoder takes 1"), ({"size": 15}, "multiples of 2")],
)
def test_what_does_not_fit_is_refused_before_the_first_step(few_digits, tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        fit(autoencoder_task(), digit_data(few_digits, **data), tmp_path, 1)


def test_latents_are_refused():
    class Latents:
        contract = LatentContract("ab", {"size": 16}, [2, 8, 8], "float16", [0.0] * 2, [1.0] * 2, 1)
        shards = "some/latents"

    with pytest.raises(ValueError, match="some/latents holds latents"):
        autoencoder_task().check_data(Latents())


def test_the_metrics_are_not_in_the_checkpoint(few_digits, tmp_path):
    task = autoencoder_task()
    fit(task, digit_data(few_digits), tmp_path, 2, limit_val_batches=1, val_check_interval=1)
    assert {name.split(".")[0] for name in task.state_dict()} == {"autoencoder"}


@pytest.mark.slow
def test_compiled_training_is_training(few_digits, tmp_path):
    figures = []
    for compile in (False, True):
        losses, task = Losses(), autoencoder_task(compile=compile)
        fit(task, digit_data(few_digits), tmp_path / str(compile), 2, [EMA((0.9,)), losses])
        figures.append(list(losses.by_batch.values()))
        assert not any("_orig_mod" in name for name in task.state_dict())
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)
