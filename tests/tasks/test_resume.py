"""Stopped and started again, a run is the run that was never stopped, to the last bit."""

import contextlib
import functools

import lightning as L
import pytest
import torch
from tiny_models import (
    KillBefore,
    Killed,
    Losses,
    autoencoder_task,
    differences,
    diffusion_task,
    digit_data,
    fit,
    one_cycle,
)
from torch.optim.lr_scheduler import OneCycleLR

from ldm import checkpoints
from ldm.callbacks import EMA, LatentNormalisation, SaveCheckpoints
from ldm.errors import UserError

TASKS = {"autoencoder": autoencoder_task, "diffusion": diffusion_task}
STEPS = {1: 12, 2: 8}  # accumulated batches -> steps of a run; either is more than 2 epochs of 5 batches
# Where a run is killed: before this global batch. An epoch has 5, so 3 lies inside the first epoch, 5 is its exact end,
# 6 lies after the first batch of the second, 9 is the last batch of the second.
KILLS = (3, 5, 6, 9)
NEVER = {"every_n_steps": None, "every_n_minutes": None}


class Validations(L.Callback):
    """Writes down what each validation measured, by the number of training batches before it."""

    def __init__(self):
        self.by_batch = {}

    def on_validation_end(self, trainer, pl_module):
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        self.by_batch[batches] = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def run(task, few_digits, folder, accumulate, kill=None, workers=0, seed=0, steps=None, **save):
    """Fit once; (losses by global batch, validations by global batch)."""
    losses, validations = Losses(), Validations()
    callbacks = [EMA((0.9, 0.5)), LatentNormalisation(), losses, validations]
    try:
        fit(
            TASKS[task](seed),
            digit_data(few_digits, num_workers=workers),
            folder,
            steps or STEPS[accumulate],
            callbacks if kill is None else [*callbacks, KillBefore(kill)],
            save=save,
            accumulate_grad_batches=accumulate,
            limit_val_batches=1,
            check_val_every_n_epoch=None,
            val_check_interval=4,
        )
    except Killed:
        assert kill is not None
    return losses.by_batch, validations.by_batch


@pytest.fixture(scope="module")
def whole(few_digits, tmp_path_factory):
    """The uninterrupted run of a task, made once: its losses, validations and last checkpoint."""

    @functools.cache
    def make(task, accumulate):
        folder = tmp_path_factory.mktemp(f"{task}-{accumulate}")
        losses, validations = run(task, few_digits, folder, accumulate)
        return losses, validations, checkpoints.read(checkpoints.newest(folder))

    return make


def check(whole, folder, *parts):
    """The parts of a run agree with the whole of it wherever they speak, and so do the last checkpoints, deeply."""
    losses, validations, last = whole
    for seen, validated in parts:
        assert seen == {batch: losses[batch] for batch in seen}
        assert validated == {batch: validations[batch] for batch in validated}
    assert set().union(*(seen for seen, _ in parts)) == set(losses)
    found = checkpoints.read(checkpoints.newest(folder))
    # The validation loop counts its own runs of this process, which nothing depends on.
    for checkpoint in (last, found):
        checkpoint["loops"]["fit_loop"].pop("epoch_loop.val_loop.batch_progress", None)
    assert differences(last, found) == []


@pytest.mark.parametrize(
    ("task", "accumulate", "kill"),
    [
        *(("diffusion", accumulate, kill) for accumulate in STEPS for kill in KILLS),
        *(("autoencoder", 1, 3), ("autoencoder", 1, 5), ("autoencoder", 2, 5), ("autoencoder", 2, 6)),
    ],
)
def test_killed_anywhere_and_started_again(whole, few_digits, tmp_path, task, accumulate, kill):
    first = run(task, few_digits, tmp_path, accumulate, kill=kill)
    second = run(task, few_digits, tmp_path, accumulate, seed=7)  # its fresh weights must not matter
    check(whole(task, accumulate), tmp_path, first, second)
    assert min(second[0]) > 0


@pytest.mark.parametrize("accumulate", STEPS)
def test_the_steps_since_the_last_checkpoint_come_again(whole, few_digits, tmp_path, accumulate):
    first = run("diffusion", few_digits, tmp_path, accumulate, kill=8, every_n_steps=3)
    second = run("diffusion", few_digits, tmp_path, accumulate, every_n_steps=3)
    check(whole("diffusion", accumulate), tmp_path, first, second)
    assert set(first[0]) & set(second[0])


@pytest.mark.parametrize("stop", [2, 3, 5])
@pytest.mark.parametrize("task", TASKS)
def test_stopped_by_max_steps_and_told_to_go_further(whole, few_digits, tmp_path, task, stop):
    """With accumulation an epoch is 3 steps, the last of one batch alone."""
    first = run(task, few_digits, tmp_path, 2, steps=stop)
    second = run(task, few_digits, tmp_path, 2)
    assert not set(first[0]) & set(second[0])
    check(whole(task, 2), tmp_path, first, second)


@pytest.mark.parametrize("workers", [(0, 2, 1), (2, 0, 2)])
def test_resumed_twice_with_other_numbers_of_workers(whole, few_digits, tmp_path, workers):
    kills = (3, 7, None)
    parts = [
        run("diffusion", few_digits, tmp_path, 1, kill=kill, workers=count)
        for kill, count in zip(kills, workers, strict=True)
    ]
    check(whole("diffusion", 1), tmp_path, *parts)


def test_killed_again_before_anything_new_was_done(whole, few_digits, tmp_path):
    parts = [run("diffusion", few_digits, tmp_path, 2, kill=kill) for kill in (5, 5, 6, 6, None)]
    check(whole("diffusion", 2), tmp_path, *parts)


def test_a_finished_run_does_nothing_more(whole, few_digits, tmp_path):
    run("diffusion", few_digits, tmp_path, 1)
    before = {p.name: p.read_bytes() for p in (tmp_path / checkpoints.CHECKPOINTS).iterdir()}
    losses, _ = run("diffusion", few_digits, tmp_path, 1)
    assert losses == {}
    assert {p.name: p.read_bytes() for p in (tmp_path / checkpoints.CHECKPOINTS).iterdir()} == before


def test_the_newest_checkpoint_cut_short_costs_one_interval(whole, few_digits, tmp_path):
    first = run("diffusion", few_digits, tmp_path, 1, kill=7)
    newest = checkpoints.newest(tmp_path)
    assert newest.name == "step-00000007.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"Passing over .*step-00000007\.ckpt: it has 1000 bytes"):
        second = run("diffusion", few_digits, tmp_path, 1)
    assert min(second[0]) == 6
    check(whole("diffusion", 1), tmp_path, first, second)


@pytest.mark.parametrize("kills", [(5, 10), (5, 5), (3, 10, 10), (15,)])
def test_max_epochs_are_as_many_epochs_however_often_it_was_resumed(few_digits, tmp_path, kills):
    seen = []
    for kill in (*kills, None, None):
        losses = Losses()
        callbacks = [losses] if kill is None else [losses, KillBefore(kill)]
        with contextlib.suppress(Killed):
            fit(diffusion_task(), digit_data(few_digits), tmp_path, -1, callbacks, max_epochs=3)
        seen += losses.by_batch
    assert seen == list(range(15))
    assert checkpoints.newest(tmp_path).name == "step-00000015.ckpt"


def test_a_checkpoint_by_the_clock_loses_no_accumulated_gradient(few_digits, tmp_path, monkeypatch):
    """The time is always up after a batch that was only accumulated."""

    def is_accumulated(self, trainer):
        return trainer.fit_loop._should_accumulate()

    monkeypatch.setattr(SaveCheckpoints, "time_is_up", is_accumulated)
    with contextlib.suppress(Killed):
        fit(diffusion_task(), digit_data(few_digits), tmp_path, 9, [KillBefore(9)], NEVER, accumulate_grad_batches=3)
    assert checkpoints.listed(tmp_path) == []


def test_a_checkpoint_by_the_clock_is_written(few_digits, tmp_path):
    with contextlib.suppress(Killed):
        fit(diffusion_task(), digit_data(few_digits), tmp_path, 30, [KillBefore(25)], {**NEVER, "every_n_minutes": 0})
    assert [path.name for path in checkpoints.listed(tmp_path)] == ["step-00000020.ckpt"]  # it is asked every 20 steps


@pytest.mark.parametrize("task", TASKS)
def test_every_checkpoint_is_plain_data(whole, few_digits, tmp_path, task):
    """`read` loads with weights_only=True; nothing frozen is inside, and no average stands in for the weights."""
    last = whole(task, 1)[2]
    assert {"state_dict", "ema", "optimizer_states", "lr_schedulers", "loops", "ShardData"} <= last.keys()
    parts = {key.split(".")[0] for key in last["state_dict"]}
    assert parts == ({"autoencoder"} if task == "autoencoder" else {"net", "conditioner"})
    assert set(last["ema"]) == {"0.9", "0.5"}
    for average in last["ema"].values():
        assert average["num_updates"] == 12
        assert average["weights"].keys() <= last["state_dict"].keys()
        moved = [k for k, w in average["weights"].items() if not w.equal(last["state_dict"][k])]
        assert moved


def schedule_of(total_steps, max_lr=3e-3):
    return lambda optimizer: OneCycleLR(optimizer, max_lr=max_lr, total_steps=total_steps, cycle_momentum=False)


@pytest.mark.parametrize("total_steps", [100, 9])
def test_a_changed_schedule_goes_on_as_if_it_had_always_been_so(few_digits, tmp_path, total_steps):
    """Where the first schedule ended, torch itself would refuse to step further."""
    fit(diffusion_task(lr_scheduler=schedule_of(3)), digit_data(few_digits), tmp_path / "a", 3)
    for folder in ("a", "b"):
        task = diffusion_task(lr_scheduler=schedule_of(total_steps, 1e-3))
        trainer = fit(task, digit_data(few_digits), tmp_path / folder, 7)
        assert trainer.global_step == 7
    one, other = (checkpoints.read(checkpoints.newest(tmp_path / folder)) for folder in ("a", "b"))
    assert differences(one["lr_schedulers"], other["lr_schedulers"]) == []
    groups = [state["optimizer_states"][0]["param_groups"] for state in (one, other)]
    assert differences(*groups) == []


def test_a_changed_learning_rate_is_followed_and_the_moments_stay(few_digits, tmp_path):
    fit(diffusion_task(lr_scheduler=None), digit_data(few_digits), tmp_path, 3)
    slower = diffusion_task(lr_scheduler=None, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-5, weight_decay=0.5))
    optimizer = fit(slower, digit_data(few_digits), tmp_path, 4).optimizers[0]
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1e-5, 0.5)]
    assert {state["step"].item() for state in optimizer.state.values()} == {4.0}


@pytest.mark.parametrize("pair", [(one_cycle, None), (None, one_cycle)])
def test_a_schedule_may_be_taken_away_or_added(few_digits, tmp_path, pair):
    fit(diffusion_task(lr_scheduler=pair[0]), digit_data(few_digits), tmp_path / "a", 3)
    trainers = [fit(diffusion_task(lr_scheduler=pair[1]), digit_data(few_digits), tmp_path / f, 5) for f in "ab"]
    one, other = (trainer.optimizers[0].param_groups[0]["lr"] for trainer in trainers)
    assert one == other


def test_another_kind_of_optimizer_is_refused(few_digits, tmp_path):
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 3)
    other = diffusion_task(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3))
    with pytest.raises(UserError, match="trained with AdamW and the config names SGD"):
        fit(other, digit_data(few_digits), tmp_path, 4)


@pytest.mark.parametrize("option", [{"seed": 1}, {"batch_size": 10}])
def test_another_order_is_refused(few_digits, tmp_path, option):
    run("diffusion", few_digits, tmp_path, 1, kill=3)
    with pytest.raises(UserError, match=f"trained with {next(iter(option))} "):
        fit(diffusion_task(), digit_data(few_digits, **option), tmp_path, 12)


def test_another_autoencoder_is_refused(few_digits, tmp_path):
    run("diffusion", few_digits, tmp_path, 1, kill=3)
    task = diffusion_task()
    task.autoencoder.set_statistics(0.0, 1.0, 10)
    with pytest.raises(UserError, match=r"latent space of autoencoder [0-9a-f]{12} and is given [0-9a-f]{12}"):
        fit(task, digit_data(few_digits), tmp_path, 12)
