"""An autoencoder and its discriminator in training: when which begins, what a step is, how a resumed run goes on."""

import contextlib
import functools
import itertools

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from tiny_models import (
    KillBefore,
    Killed,
    Losses,
    adam,
    adversarial_task,
    differences,
    digit_data,
    fit,
    halving,
    one_cycle,
    tiny_autoencoder,
)

from ldm import checkpoints
from ldm.autoencoders import LPIPS, Adversarial, AutoencoderLoss, KLAutoencoder, Perceptual, QuantisedAutoencoder
from ldm.autoencoders.discriminators import FeatureDiscriminator, PatchGAN
from ldm.autoencoders.quantisers import FSQ, VQ
from ldm.callbacks import EMA, LatentNormalisation
from ldm.errors import UserError
from ldm.nn.features import TimmFeatures
from ldm.tasks import AutoencoderTask


class Weights(L.Callback):
    """Writes down what the discriminator is, and what the autoencoder heard of it, batch by batch."""

    def __init__(self):
        self.discriminator, self.heard, self.logvar = {}, {}, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        parameters = pl_module.loss.adversarial.discriminator.parameters()
        self.discriminator[batch["step"]] = torch.cat([p.detach().flatten().clone() for p in parameters])
        self.heard[batch["step"]] = "train/adversarial" in trainer.callback_metrics
        self.logvar[batch["step"]] = pl_module.loss.logvar.item()


def begins(seen: Weights) -> int:
    """The first batch after which the discriminator was another than before it."""
    batches = sorted(seen.discriminator)
    return next(b for a, b in itertools.pairwise(batches) if not equal(seen, a, b))


def equal(seen, one, other):
    return torch.equal(seen.discriminator[one], seen.discriminator[other])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_side_starts_at_exactly_its_batch(few_digits, tmp_path, accumulate):
    """Counted in batches whatever is accumulated: the discriminator learns from 3, the autoencoder hears it from 6."""
    seen = Weights()
    task = adversarial_task(start=6, warmup=3)
    data = digit_data(few_digits, batch_size=10)  # 6 batches an epoch, at whose end a step is taken in any case
    fit(task, data, tmp_path, 10 // accumulate, [seen], accumulate_grad_batches=accumulate)
    assert len(seen.heard) == 10
    assert [b for b, heard in seen.heard.items() if heard] == [6, 7, 8, 9]
    # A step is taken after every batch, or after batches 1, 3, 5, ...: batch 3 is the first that moves it either way.
    assert begins(seen) == 3


def test_a_start_in_the_middle_of_a_step_counts_that_half(few_digits, tmp_path):
    seen = Weights()
    task = adversarial_task(start=3, lecam=0, r1=0)
    fit(task, digit_data(few_digits), tmp_path, 3, [seen], accumulate_grad_batches=2)
    assert begins(seen) == 3
    state = task.trainer.optimizers[0].parts[1].state
    assert {int(moments["step"]) for moments in state.values()} == {2}  # not 3: the first step was not one of its


def test_before_its_start_the_discriminator_takes_no_part(few_digits, tmp_path):
    """The autoencoder learns as it does without: the term is not even computed."""
    with_it, without = Losses(), Losses()
    fit(adversarial_task(start=50, learned_logvar=False), digit_data(few_digits), tmp_path / "with", 4, [with_it])
    task = adversarial_task(start=50, learned_logvar=False)
    plain = AutoencoderTask(task.autoencoder, AutoencoderLoss("l1", 1e-3), task.optimizer, task.lr_scheduler)
    fit(plain, digit_data(few_digits), tmp_path / "without", 4, [without])
    assert with_it.by_batch == without.by_batch


def test_the_learned_variance_is_learned(few_digits, tmp_path):
    """Towards its optimum log(reconstruction error), where the likelihood's derivative is 0."""
    seen, task = Weights(), adversarial_task(start=100)
    fit(task, digit_data(few_digits), tmp_path, 6, [seen])
    moved = [seen.logvar[b] for b in range(6)]
    assert all(later < earlier for earlier, later in zip([0.0, *moved], moved, strict=False))  # the error is below 1


@pytest.mark.parametrize("batch_size", [1])
@pytest.mark.parametrize("norm", ["group", "spectral", "batch", "none"])
def test_one_image_is_a_batch(few_digits, tmp_path, batch_size, norm):
    torch.manual_seed(0)
    loss = AutoencoderLoss(terms=[Adversarial(PatchGAN(1, channels=4, depth=2, norm=norm), start=0)])
    task = AutoencoderTask(tiny_autoencoder(), loss)
    before = {name: p.detach().clone() for name, p in task.trained_parameters().items()}
    fit(task, digit_data(few_digits, batch_size=batch_size), tmp_path, 3)
    after = task.trained_parameters()
    assert all(p.isfinite().all() for p in after.values())
    judging = [name for name in after if "discriminator" in name and "weight" in name]
    assert all(not torch.equal(after[name], before[name]) for name in judging)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def step_of(few_digits, folder, batch_size, accumulate, plugins=(), **options):
    """What one optimizer step with clipping moves, for each side: a flat vector."""
    torch.manual_seed(0)
    # FSQ draws no noise, and each batch's own balance of gradients would differ from the large batch's.
    autoencoder = QuantisedAutoencoder(FSQ([5, 5]), 1, channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    term = Adversarial(PatchGAN(1, channels=4, depth=1), weight=0.1, start=0, adaptive=False, game="vanilla")
    task = AutoencoderTask(autoencoder, AutoencoderLoss("l2", 0.0, [term]), optimizer=sgd)
    before = {name: p.detach().clone() for name, p in task.trained_parameters().items()}
    settings = {"gradient_clip_val": 0.05, "accumulate_grad_batches": accumulate, "plugins": plugins, **options}
    fit(task, digit_data(few_digits, batch_size=batch_size), folder, 1, **settings)
    moved = {name: p.detach() - before[name] for name, p in task.trained_parameters().items()}
    sides = [[m.flatten() for name, m in moved.items() if ("discriminator" in name) == side] for side in (False, True)]
    return [torch.cat(side) for side in sides]


def fp16():
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))]


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-4), ("bf16", 0.05), ("fp16", 0.02)])
def test_clipping_and_accumulation_are_those_of_the_large_batch(few_digits, tmp_path, precision, error):
    """Each side is clipped by its own norm, after unscaling: clipped while scaled it would be 4096 times too short."""
    options = {"fp32": {}, "bf16": {"precision": "bf16-mixed"}, "fp16": {"plugins": fp16()}}[precision]
    wanted = step_of(few_digits, tmp_path / "large", 12, 1)
    found = step_of(few_digits, tmp_path / "accumulated", 6, 2, **options)
    for one, other in zip(wanted, found, strict=True):
        assert one.norm() == pytest.approx(0.05, rel=1e-3)  # both sides really are clipped
        assert (one - other).norm() / one.norm() < error


def test_a_gradient_beyond_float16_skips_the_step_on_both_sides(few_digits, tmp_path):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**40))
    autoencoder, discriminator = step_of(few_digits, tmp_path, 12, 1, [plugin])
    assert autoencoder.abs().max() == 0
    assert discriminator.abs().max() == 0
    assert plugin.scaler.get_scale() == 2.0**39


STEPS = {1: 8, 2: 5}
START = 4


def train(few_digits, folder, accumulate, kill=None, quantiser=None):
    losses = Losses()
    torch.manual_seed(0)
    task = adversarial_task(quantiser=quantiser() if quantiser else None, start=START, warmup=2)
    callbacks = [EMA((0.9,)), losses] + ([] if kill is None else [KillBefore(kill)])
    with contextlib.suppress(Killed):
        fit(task, digit_data(few_digits), folder, STEPS[accumulate], callbacks, accumulate_grad_batches=accumulate)
    return losses.by_batch


@pytest.fixture(scope="module")
def whole(few_digits, tmp_path_factory):
    @functools.cache
    def make(accumulate, quantiser):
        folder = tmp_path_factory.mktemp("whole")
        return train(few_digits, folder, accumulate, None, quantiser), checkpoints.read(checkpoints.newest(folder))

    return make


def vq():
    return VQ(16, 2, restart_every=2, restart_below=0.9)


def averaged_vq():
    return VQ(16, 2, codebook="ema", restart_every=3, restart_below=0.9)


@pytest.mark.parametrize("quantiser", [None, vq, averaged_vq])
@pytest.mark.parametrize("kill", [START - 1, START, START + 1])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_around_the_start_it_is_the_uninterrupted_run(few_digits, tmp_path, whole, accumulate, kill, quantiser):
    if accumulate == 2 and quantiser is not None:
        pytest.skip("covered by one batch a step")
    losses, last = whole(accumulate, quantiser)
    first = train(few_digits, tmp_path, accumulate, kill, quantiser)
    second = train(few_digits, tmp_path, accumulate, None, quantiser)
    assert 0 < len(first) < len(losses)
    assert first.items() <= losses.items()
    assert second.items() <= losses.items()
    assert first.keys() | second.keys() == losses.keys()
    assert differences(checkpoints.read(checkpoints.newest(tmp_path)), last) == []


def test_each_side_has_its_own_schedule(few_digits, tmp_path):
    task = adversarial_task()
    trainer = fit(task, digit_data(few_digits), tmp_path, 4)
    autoencoder, discriminator = trainer.optimizers[0].parts
    assert discriminator.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)  # halved after 2 and after 4 steps
    assert autoencoder.param_groups[0]["lr"] == trainer.lr_scheduler_configs[0].scheduler.parts[0].get_last_lr()[0]
    assert autoencoder.param_groups[0]["lr"] != discriminator.param_groups[0]["lr"]
    assert trainer.global_step == 4  # a batch is one step, not two


def test_a_start_beyond_the_end_is_said(few_digits, tmp_path):
    with pytest.warns(UserWarning, match=r"starts at batch 10, and the run ends after 6"):
        fit(adversarial_task(start=10), digit_data(few_digits), tmp_path / "steps", 3, accumulate_grad_batches=2)
    with pytest.warns(UserWarning, match=r"starts at batch 10, and the run ends after 5"):
        fit(adversarial_task(start=10), digit_data(few_digits), tmp_path / "epochs", -1, max_epochs=1)


def scheduled(autoencoder, discriminator):
    torch.manual_seed(0)
    loss = AutoencoderLoss("l1", 1e-3, [Adversarial(PatchGAN(1, channels=4, depth=1), start=0)])
    schedules = {"lr_scheduler": autoencoder, "discriminator_scheduler": discriminator}
    return AutoencoderTask(tiny_autoencoder(), loss, optimizer=adam, **schedules)


@pytest.mark.parametrize(
    ("before", "after", "rates"),
    [
        ((halving, None), (halving, halving), [1e-3 / 4, 1e-3 / 4]),
        ((halving, halving), (halving, None), [1e-3 / 4, 1e-3]),
        ((halving, None), (None, halving), [1e-3, 1e-3 / 4]),
        ((None, None), (halving, None), [1e-3 / 4, 1e-3]),
        ((halving, None), (None, None), [1e-3, 1e-3]),
        ((halving, None), (one_cycle, None), [None, 1e-3]),
    ],
)
def test_a_resumed_run_follows_the_schedules_of_its_config(few_digits, tmp_path, before, after, rates):
    """As if they had always been so: halved after 2 and after 4 steps, on the side that the config says."""
    fit(scheduled(*before), digit_data(few_digits), tmp_path, 3)
    trainer = fit(scheduled(*after), digit_data(few_digits), tmp_path, 4)
    found = [group["lr"] for group in trainer.optimizers[0].param_groups]
    always = fit(scheduled(*after), digit_data(few_digits), tmp_path / "always", 4).optimizers[0].param_groups
    assert found == pytest.approx([group["lr"] for group in always])
    assert all(rate is None or rate == pytest.approx(lr) for rate, lr in zip(rates, found, strict=True))


def test_half_precision_weights_and_images_too_small_for_a_patch_are_refused(few_digits, tmp_path):
    with pytest.raises(UserError, match="give bf16-mixed or 16-mixed"):
        fit(adversarial_task(), digit_data(few_digits), tmp_path, 1, precision="bf16-true")
    task = AutoencoderTask(tiny_autoencoder(), AutoencoderLoss(terms=[Adversarial(PatchGAN(1, channels=4))]))
    with pytest.raises(UserError, match="needs images of at least 24 pixels a side, and these are 16x16"):
        fit(task, digit_data(few_digits), tmp_path, 1)
    frozen = tiny_autoencoder().requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        fit(AutoencoderTask(frozen), digit_data(few_digits), tmp_path, 1)


def test_statistics_of_other_weights_are_forgotten(few_digits, tmp_path):
    """An autoencoder that came with statistics trains on: until they are measured anew there are none."""
    task = AutoencoderTask(tiny_autoencoder(), optimizer=adam)
    assert task.autoencoder.latent_samples == 10
    fit(task, digit_data(few_digits), tmp_path, 2, [LatentNormalisation()])
    states = [checkpoints.read(path)["state_dict"] for path in sorted(tmp_path.glob("checkpoints/*.ckpt"))]
    assert [int(state["autoencoder.latent_samples"]) for state in states] == [0, 60]


def test_what_is_used_later_holds_no_discriminator(few_digits, tmp_path):
    task = adversarial_task()
    fit(task, digit_data(few_digits), tmp_path, 2, [EMA((0.9,))])
    assert not any(name.startswith("loss.") for name in task.averages["0.9"].weights)
    assert any("discriminator" in name for name in checkpoints.read(checkpoints.newest(tmp_path))["state_dict"])


def test_channels_last_is_the_same_training(few_digits, tmp_path):
    losses = [Losses(), Losses()]
    for channels_last in (False, True):
        task = adversarial_task(channels_last=channels_last, start=0)
        fit(task, digit_data(few_digits), tmp_path / str(channels_last), 3, [losses[channels_last]])
    assert losses[1].by_batch == pytest.approx(losses[0].by_batch, rel=1e-3)
    assert task.autoencoder.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="set the loss's kl_weight to 0"):
        AutoencoderTask(QuantisedAutoencoder(FSQ([5, 5]), channels=8), AutoencoderLoss())
    with pytest.raises(ValueError, match=r"takes 1 channel\(s\) and the autoencoder gives 3"):
        AutoencoderTask(KLAutoencoder(channels=8), AutoencoderLoss(terms=[Adversarial(PatchGAN(1))]))


@pytest.mark.slow
def test_compiled_it_is_the_same_training(few_digits, tmp_path):
    figures = []
    for compile in (False, True):
        torch.manual_seed(0)
        loss = AutoencoderLoss("l1", 1e-3, [Adversarial(PatchGAN(1, channels=4, depth=1), start=1)])
        losses = Losses()
        task = AutoencoderTask(tiny_autoencoder(), loss, compile=compile)
        fit(task, digit_data(few_digits), tmp_path / str(compile), 3, [losses])
        figures.append(list(losses.by_batch.values()))
    assert figures[1] == pytest.approx(figures[0], rel=1e-3)


def test_files_that_are_not_there_are_named_before_the_first_step(few_digits, tmp_path):
    features = TimmFeatures("resnet10t", str(tmp_path / "none.safetensors"))
    terms = [LPIPS(str(tmp_path / "none.pth")), Perceptual(features), Adversarial(FeatureDiscriminator(features, 1))]
    for term in terms:
        with pytest.raises(UserError, match=r"none\.(pth|safetensors), and there is no such file"):
            fit(AutoencoderTask(tiny_autoencoder(), AutoencoderLoss(terms=[term])), digit_data(few_digits), tmp_path, 1)


def test_r1_is_possible_through_a_transformer():
    """Whose fused attention has no second derivative."""
    torch.manual_seed(0)
    features = TimmFeatures("vit_tiny_patch16_224", layers=[0], size=32)
    term = Adversarial(FeatureDiscriminator(features, channels=8), r1=1.0)
    penalty = term.gradient_penalty(torch.rand(1, 3, 32, 32))
    penalty.backward()
    assert all(p.grad is not None for name, p in term.named_parameters() if "enter" in name and "weight" in name)
