"""The EMA callback: counted by optimizer steps, kept beside the weights, exact when resumed."""

import contextlib

import lightning as L
import pytest
import torch
from tiny_models import KillBefore, Killed, adversarial_task, autoencoder_task, diffusion_task, digit_data, fit

from ldm import checkpoints
from ldm.autoencoders.quantisers import VQ
from ldm.callbacks import EMA
from ldm.nn.ema import WeightAverage


class WeightsByStep(L.Callback):
    """Writes down the trained weights at the start and after each optimizer step."""

    def __init__(self):
        self.by_step = {}

    def on_train_start(self, trainer, pl_module):
        self.by_step[0] = {name: p.detach().clone() for name, p in pl_module.trained_parameters().items()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        weights = {name: p.detach().clone() for name, p in pl_module.trained_parameters().items()}
        self.by_step[trainer.global_step] = weights


@pytest.mark.parametrize("make", [autoencoder_task, diffusion_task])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
@pytest.mark.parametrize("warmup", [True, False])
def test_it_is_the_average_over_the_optimizer_steps(few_digits, tmp_path, make, options, warmup):
    task, weights = make(), WeightsByStep()
    fit(task, digit_data(few_digits), tmp_path, 6, [EMA((0.9, 0.5, 0.0), warmup), weights], **options)
    assert list(weights.by_step) == list(range(7))
    for decay in (0.9, 0.5, 0.0):
        expected = WeightAverage(weights.by_step[0], decay, warmup)
        for step in range(1, 7):
            expected.update(weights.by_step[step])
        found = task.averages[str(decay)]
        assert found.num_updates == 6
        for name, value in expected.weights.items():
            assert found.weights[name].dtype == torch.float32
            assert torch.equal(found.weights[name], value)


def test_the_checkpoint_has_both_kinds_of_weights_and_resuming_goes_on(few_digits, tmp_path):
    whole, halves = diffusion_task(), diffusion_task(seed=5)
    fit(whole, digit_data(few_digits), tmp_path / "whole", 6, [EMA((0.9, 0.5))])
    with contextlib.suppress(Killed):
        fit(halves, digit_data(few_digits), tmp_path / "halves", 6, [EMA((0.9, 0.5)), KillBefore(0)])
    fit(diffusion_task(), digit_data(few_digits), tmp_path / "halves", 3, [EMA((0.9, 0.5))])
    saved = checkpoints.read(checkpoints.newest(tmp_path / "halves"))
    assert list(saved["ema"]) == ["0.9", "0.5"]
    fit(halves, digit_data(few_digits), tmp_path / "halves", 6, [EMA((0.9, 0.5))])
    for decay in ("0.9", "0.5"):
        assert halves.averages[decay].num_updates == 6
        for name, value in whole.averages[decay].weights.items():
            assert torch.equal(halves.averages[decay].weights[name], value)


def test_an_average_that_is_added_later_starts_from_the_weights(few_digits, tmp_path):
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 3, [EMA((0.9,))])
    saved = checkpoints.read(checkpoints.newest(tmp_path))
    task = diffusion_task(seed=5)

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            for name, value in pl_module.averages["0.5"].weights.items():
                assert torch.equal(value, saved["state_dict"][name])
            assert pl_module.averages["0.9"].num_updates == 3

    fit(task, digit_data(few_digits), tmp_path, 4, [EMA((0.9, 0.5)), Look()])
    assert {decay: average.num_updates for decay, average in task.averages.items()} == {"0.9": 4, "0.5": 1}


def test_the_weights_are_never_saved_swapped(few_digits, tmp_path):
    """Validation fails while the average stands in the net: what is saved then are the trained weights."""
    task, weights = diffusion_task(), WeightsByStep()

    class FailInValidation(L.Callback):
        def on_validation_start(self, trainer, pl_module):
            calls = []

            def fails(*args):
                calls.append({name: p.detach().clone() for name, p in pl_module.trained_parameters().items()})
                if len(calls) == 2:
                    raise Killed
                return torch.zeros(1)

            pl_module.diffusion.loss = fails
            self.calls = calls

    failing = FailInValidation()
    options = {"limit_val_batches": 1, "val_check_interval": 3}
    trainer = None
    with pytest.raises(Killed):
        trainer = fit(task, digit_data(few_digits), tmp_path, 6, [EMA((0.9,)), weights, failing], **options)
    assert trainer is None
    for name, value in task.trained_parameters().items():
        assert torch.equal(value, weights.by_step[3][name])
        assert torch.equal(failing.calls[0][name], weights.by_step[3][name])
        assert torch.equal(failing.calls[1][name], task.averages["0.9"].weights[name])
    saved = checkpoints.read(checkpoints.newest(tmp_path))
    for name, value in weights.by_step[3].items():
        assert torch.equal(saved["state_dict"][name], value)


def test_without_the_callback_averaged_weights_are_the_weights(few_digits, tmp_path):
    task = diffusion_task()
    fit(task, digit_data(few_digits), tmp_path, 1)
    before = {name: p.detach().clone() for name, p in task.trained_parameters().items()}
    with task.averaged():
        assert all(torch.equal(p, before[name]) for name, p in task.trained_parameters().items())
    assert checkpoints.read(checkpoints.newest(tmp_path))["ema"] == {}


class StateAroundValidation(L.Callback):
    """Writes down everything before and after each validation, and counts the versions that were measured."""

    def __init__(self):
        self.pairs = []

    def state(self, task):
        return {name: value.clone() for name, value in task.state_dict().items()}

    def on_validation_start(self, trainer, pl_module):
        self.before = self.state(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.pairs.append((self.before, self.state(pl_module)))


@pytest.mark.parametrize("codebook", ["gradient", "ema"])
def test_of_an_autoencoder_it_averages_what_encodes_and_decodes(few_digits, tmp_path, codebook):
    """Not the discriminator nor the learned variance; a codebook that is no parameter is a moving average already."""
    task, around = adversarial_task(quantiser=VQ(16, 2, codebook=codebook)), StateAroundValidation()
    options = {"limit_val_batches": 1, "val_check_interval": 2}
    trainer = fit(task, digit_data(few_digits), tmp_path, 4, [EMA((0.5,), warmup=False), around], **options)
    averaged = task.averages["0.5"].weights
    assert all(name.startswith("autoencoder.") for name in averaged)
    assert ("autoencoder.quantiser.codebook" in averaged) == (codebook == "gradient")
    assert len(around.pairs) == 2
    for before, after in around.pairs:  # both versions were measured, and the weights are as before, bit for bit
        assert all(torch.equal(after[name], value) for name, value in before.items())
    metrics = trainer.callback_metrics
    assert metrics["val/reconstruction"] != metrics["val/reconstruction_ema0.5"]
    assert {"val/perplexity", "val/perplexity_ema0.5", "train/code_usage"} <= metrics.keys()
    saved = checkpoints.read(checkpoints.newest(tmp_path))
    trained = task.state_dict()
    assert all(torch.equal(saved["state_dict"][name], value) for name, value in trained.items())
    assert all(torch.equal(saved["ema"]["0.5"]["weights"][name], value) for name, value in averaged.items())
    assert any(not torch.equal(trained[name], value) for name, value in averaged.items())
