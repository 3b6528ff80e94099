"""DiffusionTask: what a step computes, what it refuses, what validation measures."""

import pytest
import torch
from tiny_models import Losses, diffusion_task, digit_data, fit, tiny_autoencoder

from ldm.callbacks import EMA
from ldm.conditioners import Conditioner, Label
from ldm.errors import UserError
from ldm.networks import DiT
from ldm.tasks.base import BatchNoise


def first_batch(data):
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def test_the_first_step_is_the_loss_written_out(few_digits, tmp_path):
    losses = Losses()
    fit(diffusion_task(seed=3), digit_data(few_digits), tmp_path, 1, [losses])
    task, batch = diffusion_task(seed=3), first_batch(digit_data(few_digits))
    noise = BatchNoise(0, 0, torch.arange(12), 12)
    with torch.no_grad():
        latents = task.autoencoder.encode(batch["images"]).sample(noise.normal(2, 8, 8))
        noise.uniform()  # of the rows whose conditions are dropped all together
        cond = task.conditioner(batch, drop=noise.uniform() < 0.1)
        t = noise.uniform().clamp(1e-3, 1)[:, None, None, None]
        eps = noise.normal(2, 8, 8)
        predicted = task.net((1 - t) * latents + t * eps, task.diffusion.path.noise_condition(t.flatten()), cond)
        expected = (predicted - (eps - latents)).square().mean()
    assert losses.by_batch[0] == pytest.approx(expected.item(), rel=1e-5)


def test_the_autoencoder_is_neither_trained_nor_in_training_mode(few_digits, tmp_path):
    task = diffusion_task()
    before = {name: value.clone() for name, value in task.autoencoder.state_dict().items()}
    fit(task, digit_data(few_digits), tmp_path, 3)
    for name, value in task.autoencoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in task.autoencoder.parameters())
    task.train()
    assert task.net.training
    assert not any(module.training for module in task.autoencoder.modules())
    assert not any(name.startswith("autoencoder") for name in task.trained_parameters())


def test_every_trained_parameter_moves(few_digits, tmp_path):
    task = diffusion_task()
    before = {name: value.detach().clone() for name, value in task.trained_parameters().items()}
    fit(task, digit_data(few_digits), tmp_path, 4)
    assert [name for name, value in task.trained_parameters().items() if torch.equal(value, before[name])] == []


def test_validation_depends_on_the_weights_alone(few_digits, tmp_path):
    """Fixed noise: a second validation, also with another batch size, gives the same figure."""
    figures = []
    for batch_size in (12, 12, 4):
        trainer = fit(
            diffusion_task(),
            digit_data(few_digits, batch_size=batch_size),
            tmp_path / str(len(figures)),
            1,
            limit_train_batches=1,
            limit_val_batches=1.0,
            num_sanity_val_steps=-1,
            val_check_interval=1,
        )
        torch.manual_seed(len(figures))
        figures.append(
            trainer.validate(diffusion_task(), digit_data(few_digits, batch_size=batch_size), verbose=False)[0]
        )
    assert figures[0] == figures[1]
    assert figures[2]["val/loss"] == pytest.approx(figures[0]["val/loss"], rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_raw_and_averaged_weights_are_both_validated(few_digits, tmp_path, precision):
    """Each figure is that of a net that really holds those weights, under autocast too."""
    task = diffusion_task(optimizer=lambda p: torch.optim.SGD(p, lr=0.3), lr_scheduler=None)
    for weight in task.conditioner.parameters():
        weight.register_hook(lambda gradient: 100 * gradient)  # what is heard of a label moves as far as the net
    options = {"precision": precision, "limit_val_batches": 1.0, "val_check_interval": 5}
    trainer = fit(task, digit_data(few_digits), tmp_path, 5, [EMA((0.99, 0.9), warmup=False)], **options)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    assert set(logged) == {"val/loss", "val/loss_ema0.99", "val/loss_ema0.9"}
    assert len(set(logged.values())) == 3
    for name, weights in [("val/loss", None), *((f"val/loss_ema{d}", d) for d in task.averages)]:
        alone = diffusion_task()
        alone.load_state_dict(task.state_dict())
        if weights is not None:
            alone.load_state_dict(task.averages[weights].weights, strict=False)
        (measured,) = trainer.validate(alone, digit_data(few_digits), verbose=False)
        assert measured["val/loss"] == pytest.approx(logged[name], rel=1e-6)


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ({}, {"channels": 3}, r"3 channel\(s\) and the autoencoder takes 1"),
        ({}, {"size": 32}, r"input_size to \[16, 16\]"),
        ({"conditioner": lambda: Conditioner([Label(9, 16)])}, {}, "10 classes and the embedder Label 9"),
        ({"conditioner": lambda: Conditioner([Label(10, 8)])}, {}, "conditioner's width is 8"),
        ({"net": lambda: DiT(8, 2, 4, 16, 1, 2, learned_variance=True)}, {}, "learned_variance to false"),
        ({"net": lambda: DiT(8, 4, 4, 16, 1, 2)}, {}, "in_channels to 2"),
        ({}, {"size": 17}, "multiples of 2"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_the_first_step(few_digits, tmp_path, task, data, message):
    with pytest.raises(UserError, match=message):
        fit(diffusion_task(**{k: make() for k, make in task.items()}), digit_data(few_digits, **data), tmp_path, 1)


def test_data_without_labels_is_refused_before_the_first_step(few_digits, tmp_path):
    data = digit_data(few_digits)
    data.setup()
    data.manifest.classes, data.manifest.has_labels = None, False
    with pytest.raises(ValueError, match=r"train has no labels: .* data\.num_classes"):
        diffusion_task().check_data(data)
    diffusion_task(conditioner=Conditioner()).check_data(data)


def test_labels_that_the_model_does_not_know_never_reach_the_null_row(few_digits, tmp_path):
    """The embedding alone would take a label of num_classes for "no class": the data refuses it first."""
    with pytest.raises(UserError, match="num_classes is 9"):
        fit(diffusion_task(), digit_data(few_digits, num_classes=9), tmp_path, 1)


def test_an_unconditional_model_trains(few_digits, tmp_path):
    losses = Losses()
    fit(diffusion_task(conditioner=Conditioner()), digit_data(few_digits), tmp_path, 2, [losses])
    assert all(loss == loss for loss in losses.by_batch.values())


def test_a_frozen_part_is_not_asked_for_a_gradient():
    task = diffusion_task(autoencoder=tiny_autoencoder(5))
    assert set(task.trained_parameters()) == {
        *(f"net.{name}" for name, _ in task.net.named_parameters()),
        "conditioner.embedders.0.embedding.weight",
    }


@pytest.mark.slow
def test_compiled_training_is_training(few_digits, tmp_path):
    figures = []
    for compile in (False, True):
        losses, task = Losses(), diffusion_task(compile=compile)
        options = {"limit_val_batches": 1, "val_check_interval": 3}
        trainer = fit(task, digit_data(few_digits), tmp_path / str(compile), 3, [EMA((0.9,)), losses], **options)
        figures.append(
            [*losses.by_batch.values(), *(trainer.callback_metrics[f"val/loss{s}"].item() for s in ("", "_ema0.9"))]
        )
        assert figures[-1][-1] != figures[-1][-2]  # the compiled net, too, sees that weights were swapped
        assert not any("_orig_mod" in name for name in task.state_dict())
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)
