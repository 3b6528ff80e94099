"""Sample grids, reconstruction grids, losses by noise level, throughput, and the record of a run."""

import json
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import adam, autoencoder_task, diffusion_task, digit_data, fit, tiny_quantised
from torch.utils.flop_counter import FlopCounterMode

from ldm.callbacks import EMA, NoiseLevelLoss, ReconstructionGrid, RunRecord, SampleGrid, Throughput
from ldm.conditioners import Conditioner, Label, SmallText
from ldm.data import ShardData
from ldm.diffusion import ColdDiffusion
from ldm.diffusion.degradations import Blur
from ldm.diffusion.guidance import ClassifierFree
from ldm.diffusion.samplers import DDIM
from ldm.errors import UserError
from ldm.networks import DiT
from ldm.networks.blocks import AdaLNZeroCross
from ldm.sampling import Request, sample_images
from ldm.tasks import AutoencoderTask


def pictures(run):
    return sorted(path.name for path in (run / "pictures").iterdir())


def sample_grid(**options):
    return SampleGrid(**{"every_n_steps": 2, "classes": [7, 1, 4], "rows": 2, "sampler": DDIM(3), **options})


class Watch(L.Callback):
    """Compares weights and training mode before and after all the others' hooks of a batch."""

    def __init__(self, look):
        self.look, self.states = look, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.states.append((self.look, state, {name: m.training for name, m in pl_module.named_modules()}))


def test_a_grid_is_drawn_at_intervals_and_changes_nothing(few_digits, tmp_path):
    before, after = Watch("before"), Watch("after")
    callbacks = [EMA((0.9,)), before, sample_grid(), after]
    logger = TensorBoardLogger(tmp_path, name="", version="logs")
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 5, callbacks, logger=logger, accumulate_grad_batches=2)
    assert pictures(tmp_path) == [f"samples-{step:08d}.png" for step in (2, 4, 5)]
    picture = Image.open(tmp_path / "pictures" / "samples-00000004.png")
    assert picture.size == (3 * 66 + 2, 2 * 66 + 2 + 20)  # 16 pixels four times as large, a frame, titles
    for (_, one, modes), (_, other, modes_after) in zip(before.states, after.states, strict=True):
        assert modes == modes_after
        assert modes["net"]
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("samples")] == [2, 4, 5]
    shown = events.Images("samples")[1]
    assert (shown.width, shown.height) == picture.size


def test_a_grid_shows_fixed_noises_with_the_averaged_weights_a_class_in_each_column(few_digits, tmp_path):
    task = diffusion_task()
    fit(task, digit_data(few_digits), tmp_path, 4, [EMA((0.9,)), sample_grid(every_n_steps=100, seed=5)])
    with task.averaged():
        request = Request(range(5, 11), {"labels": [7, 1, 4, 7, 1, 4]}, [ClassifierFree(2.0)])
        images = sample_images(task.eval(), request, DDIM(3))
    shown = np.asarray(Image.open(tmp_path / "pictures" / "samples-00000004.png").convert("L")).astype(int)
    for i, image in enumerate(images):
        top, left = 22 + i // 3 * 66, 2 + i % 3 * 66
        expected = ((image[0].clamp(-1, 1) + 1) * 127.5).round().numpy().astype(int)
        assert np.abs(shown[top : top + 64 : 4, left : left + 64 : 4] - expected).max() <= 1


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_a_grid_does_not_depend_on_its_batches(few_digits, tmp_path, batch_size):
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 2, [sample_grid(batch_size=batch_size)])
    fit(diffusion_task(), digit_data(few_digits), tmp_path / "b", 2, [sample_grid(batch_size=6)])
    one, other = (
        np.asarray(Image.open(run / "pictures/samples-00000002.png")).astype(int) for run in (tmp_path, tmp_path / "b")
    )
    assert np.abs(one - other).max() <= 1


def test_the_global_generator_is_neither_used_nor_moved(few_digits, tmp_path):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    task = diffusion_task()
    torch.set_rng_state(state)
    fit(task, digit_data(few_digits), tmp_path, 3, [EMA((0.9,)), sample_grid(), NoiseLevelLoss()])
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unconditional_model_has_a_grid_without_titles(few_digits, tmp_path):
    task = diffusion_task(conditioner=Conditioner())
    fit(task, digit_data(few_digits), tmp_path, 2, [SampleGrid(rows=1, sampler=DDIM(2))])
    assert Image.open(tmp_path / "pictures/samples-00000002.png").width == 8 * 66 + 2


def text_task(*further):
    """A model of captions."""
    torch.manual_seed(0)
    text = SmallText(8, depth=1, num_heads=2, context_length=12, vector_width=16, table_width=4)
    net = DiT(8, 2, patch_size=4, width=16, depth=1, num_heads=2, block=AdaLNZeroCross(8))
    return diffusion_task(net=net, conditioner=Conditioner([text, *further]))


class Captioned(ShardData):
    """Digits with captions, of which the manifest says nothing."""

    provides = None
    captions = ("a zero", "a one", "a two that is not like the others")

    def examples(self, count):
        batch = super().examples(min(count, 3))
        return {**batch, "captions": list(self.captions)}

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "captions": [f"a {label}" for label in batch["labels"].tolist()]}


def captioned(folder):
    return Captioned(str(folder / "train"), batch_size=12, size=16, channels=1, flip=False, num_workers=0)


def test_a_grid_has_a_column_for_each_prompt_or_the_captions_of_examples(few_digits):
    """Set up as a fit would, and drawn without one."""
    trainer = SimpleNamespace(datamodule=captioned(few_digits))
    for grid, task, columns, titles in (
        (SampleGrid(prompts=["a red circle", "cyan"], rows=3), text_task(), 2, ["a red circle", "cyan"]),
        (SampleGrid(rows=3), text_task(), 3, list(Captioned.captions)),
        (SampleGrid(prompts=["a", "b", "c", "d", "e"], rows=3), text_task(), 5, list("abcde")),
        (SampleGrid(prompts=["a", "b"], classes=[3, 4], rows=3), text_task(Label(10, 16)), 2, ["a", "b"]),
        (SampleGrid(classes=[3, 4], rows=3), text_task(Label(10, 16)), 2, ["a zero", "a one"]),
        (SampleGrid(rows=3), diffusion_task(), 8, [f"class {i}" for i in range(8)]),
    ):
        grid.setup(trainer, task, "fit")
        request, shown = grid.request(task)
        assert shown == titles
        assert list(request.seeds) == list(range(3 * columns))
        if "captions" in request.wish:
            assert request.wish["captions"] == titles * 3
        if "labels" in request.wish:
            assert len(request.wish["labels"]) == 3 * columns
        if grid.classes:
            assert list(request.wish["labels"]) == grid.classes * 3


def test_a_grid_of_prompts_that_cannot_be_drawn_is_refused(few_digits):
    with pytest.raises(ValueError, match="as many prompts as classes"):
        SampleGrid(classes=[1, 2, 3], prompts=["a", "b"])
    trainer = SimpleNamespace(datamodule=captioned(few_digits))
    with pytest.raises(UserError, match=r"SampleGrid cannot draw .*cannot be asked for prompts"):
        SampleGrid(prompts=["a"]).setup(trainer, diffusion_task(), "fit")


def test_a_grid_of_prompts_is_drawn_with_its_titles(few_digits, tmp_path):
    task, callback = text_task(), SampleGrid(prompts=["a red circle left of a blue square", "cyan"], sampler=DDIM(2))
    data = captioned(few_digits)
    fit(task, data, tmp_path, 1, [callback])
    picture = Image.open(tmp_path / "pictures/samples-00000001.png")
    assert picture.size == (2 * 130 + 2, 4 * 130 + 2 + 2 + 2 * 18)  # enlarged for the titles, in two lines


def test_a_class_that_the_model_does_not_know_is_refused(few_digits, tmp_path):
    with pytest.raises(UserError, match=r"SampleGrid cannot draw .* no class 10"):
        fit(diffusion_task(), digit_data(few_digits), tmp_path, 1, [sample_grid(classes=[3, 10])])
    for options in ({"every_n_steps": 0}, {"rows": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            SampleGrid(**options)


def test_a_model_that_cannot_be_guided_or_walked_is_refused_before_training(few_digits, tmp_path):
    undropped = diffusion_task(conditioner=Conditioner([Label(10, 16, dropout=0.0)]))
    with pytest.raises(UserError, match=r"SampleGrid cannot draw .*trained with dropout 0"):
        fit(undropped, digit_data(few_digits), tmp_path, 1, [sample_grid()])
    with pytest.raises(UserError, match=r"SampleGrid cannot sample this model: .*use the sampler Cold"):
        fit(diffusion_task(diffusion=ColdDiffusion(Blur())), digit_data(few_digits), tmp_path, 1, [sample_grid()])


@pytest.mark.parametrize("quantised", [False, True])
def test_reconstructions_and_differences_stand_below_the_images(few_digits, tmp_path, quantised):
    task = AutoencoderTask(tiny_quantised(), optimizer=adam) if quantised else autoencoder_task()
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "num_sanity_val_steps": 1}
    grid = ReconstructionGrid(3, amplify=2)
    fit(task, digit_data(few_digits, batch_size=4), tmp_path, 4, [EMA((0.9,)), grid], **options)
    assert pictures(tmp_path) == [f"reconstructions-{step:08d}.png" for step in (2, 4)]
    earlier, shown = (
        np.asarray(Image.open(tmp_path / f"pictures/reconstructions-0000000{step}.png").convert("L")).astype(int)
        for step in (2, 4)
    )
    left = shown.shape[1] - (3 * 66 + 2)
    assert shown.shape[0] == 3 * 66 + 2
    assert left > 20
    assert np.array_equal(earlier[:66], shown[:66])  # the same images each time
    assert not np.array_equal(earlier[66:132, left:], shown[66:132, left:])
    data = digit_data(few_digits, batch_size=4)
    data.setup("validate")
    images = next(iter(data.val_dataloader()))["images"][:3]
    with torch.no_grad(), task.averaged():
        made = task.autoencoder.eval().examine(images).reconstructions.clamp(-1, 1)
    for i, image in enumerate(torch.cat([images, made, (images - made).abs() * 2 - 1])):
        top, beside = 2 + i // 3 * 66, left + 2 + i % 3 * 66
        expected = ((image[0].clamp(-1, 1) + 1) * 127.5).round().numpy().astype(int)
        assert np.abs(shown[top : top + 64 : 4, beside : beside + 64 : 4] - expected).max() <= 1


class Outputs(L.Callback):
    def __init__(self):
        self.t, self.losses, self.logged = [], [], {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.t.append(outputs["t"])
        self.losses.append(outputs["losses"])
        self.logged[len(self.t)] = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("noise")}


def test_losses_are_told_apart_by_noise_level(few_digits, tmp_path):
    outputs = Outputs()
    fit(
        diffusion_task(),
        digit_data(few_digits),
        tmp_path,
        4,
        [NoiseLevelLoss(4, 2), outputs],
        accumulate_grad_batches=2,
    )
    # Steps 2 and 4 end with batches 4 and 7: the fifth batch ends an epoch and so makes a step of its own.
    assert [batch for batch in outputs.logged if outputs.logged[batch] != outputs.logged.get(batch - 1, {})] == [4, 7]
    for first, last in ((0, 4), (4, 7)):
        t, losses = torch.cat(outputs.t[first:last]), torch.cat(outputs.losses[first:last])
        for i in range(4):
            inside = (t >= i / 4) & ((t < (i + 1) / 4) | (i == 3))
            name = f"noise_level/loss_t{i / 4:.3g}-{(i + 1) / 4:.3g}"
            assert inside.any()
            assert outputs.logged[last][name] == pytest.approx(losses[inside].mean().item(), rel=1e-5)


def logged_csv(run):
    lines = (run / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]


def test_throughput_is_logged(few_digits, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    options = {"logger": logger, "log_every_n_steps": 1}
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 9, [Throughput(every_n_steps=4)], **options)
    names = [f"throughput/{name}" for name in ("images_per_s", "step_s", "data_wait")]
    rows = [[row[name] for name in names] for row in logged_csv(tmp_path)]
    assert [bool(row[0]) for row in rows[:4]] == [False, False, False, True]
    reports = {tuple(row) for row in rows if row[0]}  # what was reported last is logged until the next report
    assert len(reports) == 2
    for images, step, wait in (map(float, report) for report in reports):
        assert images * step == pytest.approx(12, rel=1e-3)
        assert 0 < wait < 1
    assert "mfu" not in (tmp_path / "metrics.csv").read_text()  # nobody states the peak of this CPU


def test_flops_of_one_step_are_counted(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm.callbacks.throughput.peak_flops", lambda device: 1e12)
    throughput, logger = Throughput(every_n_steps=2), CSVLogger(tmp_path, name="", version="")
    task, by_hand = diffusion_task(), diffusion_task()
    fit(task, digit_data(few_digits), tmp_path, 4, [throughput], logger=logger, log_every_n_steps=1)
    images, t = torch.randn(12, 1, 16, 16), torch.full((12,), 0.5)
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            latents = by_hand.autoencoder.encode(images).mode
        cond = by_hand.conditioner({"labels": torch.zeros(12, dtype=torch.long)}, drop=torch.zeros(12) > 1)
        by_hand.diffusion.loss(by_hand.net, latents, t, torch.randn_like(latents), cond).mean().backward()
    assert throughput.flops_per_batch == counter.get_total_flops() > 0
    assert any(float(row["throughput/mfu"] or 0) > 0 for row in logged_csv(tmp_path))


def test_a_config_is_written_when_training_starts(few_digits, tmp_path):
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 1, [RunRecord("model: one\n")])
    assert (tmp_path / "config.yaml").read_text() == "model: one\n"
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["packages"]["lightning"] == L.__version__
    assert environment["world_size"] == 1
    assert environment["precision"] == "32-true"
    assert environment["started_at_step"] == 0
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 2, [RunRecord("model: two\n")])
    assert (tmp_path / "config.yaml").read_text() == "model: two\n"
    assert json.loads((tmp_path / "environment.json").read_text())["started_at_step"] == 1


def test_a_config_of_another_model_does_not_replace_the_one_of_the_checkpoints(few_digits, tmp_path):
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 1, [RunRecord("model: one\n")])
    wider = diffusion_task(net=DiT(8, 2, patch_size=4, width=32, depth=2, num_heads=2))
    for other in (wider, autoencoder_task()):
        with pytest.raises((UserError, RuntimeError)):
            fit(other, digit_data(few_digits), tmp_path, 2, [EMA((0.9,)), RunRecord("model: other\n")])
        assert (tmp_path / "config.yaml").read_text() == "model: one\n"


def test_a_finished_run_keeps_its_config(few_digits, tmp_path):
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 1, [RunRecord("model: one\n")])
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 1, [RunRecord("model: two\n")])
    assert (tmp_path / "config.yaml").read_text() == "model: one\n"
