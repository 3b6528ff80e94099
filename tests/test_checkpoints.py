"""Checkpoint files: whole or not there, the newest whole one is found, and the older ones go."""

import errno
import json
import os
import resource
import subprocess
import sys
import warnings

import pytest
import torch
from tiny_models import autoencoder_task, diffusion_task, digit_data, fit

from ldm import checkpoints
from ldm.callbacks import SaveCheckpoints
from ldm.errors import UserError


def write(run, *steps, size=1000):
    for step in steps:
        checkpoints.write({"global_step": step, "w": torch.full((size,), float(step))}, at(run, step))


def at(run, step):
    return run / checkpoints.CHECKPOINTS / f"step-{step:08d}.ckpt"


def names(run):
    return sorted(p.name for p in (run / checkpoints.CHECKPOINTS).iterdir())


def whole(*steps):
    return sorted(f"step-{step:08d}.ckpt{end}" for step in steps for end in ("", ".ok"))


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


FAULTS = {
    "cut short": (cut_short, "bytes, and"),
    "zero bytes": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "a flipped bit": (flip_a_bit, "sha256 differs"),
    "no marker": (lambda path: checkpoints.marker(path).unlink(), r"no \.ok marker"),
    "an empty marker": (lambda path: checkpoints.marker(path).write_bytes(b""), "has "),
    "half a marker": (lambda path: cut_short(checkpoints.marker(path)), r"marker|has "),
    "a binary marker": (lambda path: checkpoints.marker(path).write_bytes(b"\xff\xfe\x00"), r"marker|has "),
    "a list for a marker": (lambda path: checkpoints.marker(path).write_text("[1]"), r"marker|has "),
}


def test_what_was_written_is_read(tmp_path):
    write(tmp_path, 3)
    assert checkpoints.newest(tmp_path) == at(tmp_path, 3)
    assert torch.equal(checkpoints.read(at(tmp_path, 3))["w"], torch.full((1000,), 3.0))
    assert names(tmp_path) == whole(3)
    described = json.loads(checkpoints.marker(at(tmp_path, 3)).read_text())
    assert described["step"] == 3
    assert described["bytes"] == at(tmp_path, 3).stat().st_size


def test_an_empty_run_has_none(tmp_path):
    assert checkpoints.newest(tmp_path) is None
    assert checkpoints.newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_newest_one_is_passed_over_with_a_warning(tmp_path, fault):
    breaks, reason = FAULTS[fault]
    write(tmp_path, 10, 20)
    breaks(at(tmp_path, 20))
    with pytest.warns(UserWarning, match=rf"Passing over the checkpoint .*step-00000020\.ckpt: it .*({reason})"):
        assert checkpoints.newest(tmp_path) == at(tmp_path, 10)
    with pytest.raises(UserError, match=r"step-00000020\.ckpt .*resume from another one"):
        checkpoints.read(at(tmp_path, 20))
    breaks(at(tmp_path, 10))
    with pytest.warns(UserWarning, match="Passing over"):
        assert checkpoints.newest(tmp_path) is None


def test_nothing_is_said_of_whole_ones(tmp_path):
    write(tmp_path, 10, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.newest(tmp_path) == at(tmp_path, 20)


def fail_in_save(monkeypatch, error):
    def half(checkpoint, file):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", half)


def fail_in(name):
    def prepare(monkeypatch, error):
        def fail(*args):
            raise error

        monkeypatch.setattr(name, fail)

    return prepare


MOMENTS = {
    "in the middle of the file": fail_in_save,
    "before it is synced": fail_in("os.fsync"),
    "before it is renamed": fail_in("os.replace"),
    "between the rename and the marker": fail_in("ldm.checkpoints.write_bytes"),
}
ERRORS = [OSError(errno.ENOSPC, "No space left on device"), PermissionError("not yours"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_write_that_fails_says_so_and_leaves_the_older_one(tmp_path, monkeypatch, moment, error):
    write(tmp_path, 10)
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch, error)
        with pytest.raises(type(error)):
            write(tmp_path, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert checkpoints.newest(tmp_path) == at(tmp_path, 10)
    write(tmp_path, 20)
    assert checkpoints.newest(tmp_path) == at(tmp_path, 20)
    assert names(tmp_path) == whole(10, 20)


@pytest.mark.parametrize("moment", ["in the middle of the file", "before it is synced"])
def test_a_failed_write_over_an_older_one_of_the_same_name_keeps_it_and_leaves_no_half(tmp_path, monkeypatch, moment):
    write(tmp_path, 10)
    before = at(tmp_path, 10).read_bytes()
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch, ERRORS[0])
        with pytest.raises(OSError, match="No space"):
            write(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == at(tmp_path, 10)
    assert at(tmp_path, 10).read_bytes() == before
    assert names(tmp_path) == whole(10)


def test_a_file_that_the_system_refuses_to_grow(tmp_path):
    """A true limit of the operating system instead of a patched function."""
    write(tmp_path, 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises((OSError, RuntimeError)):
            write(tmp_path, 20, size=1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.newest(tmp_path) == at(tmp_path, 10)
    assert names(tmp_path) == whole(10)


@pytest.mark.parametrize(
    ("keep", "every", "left"),
    [
        (1, None, (60,)),
        (2, None, (50, 60)),
        (9, None, (10, 20, 30, 40, 50, 60)),
        (1, 30, (30, 60)),
        (2, 20, (20, 40, 50, 60)),
    ],
)
def test_rotation_keeps_the_newest_and_the_lasting(tmp_path, keep, every, left):
    for step in range(10, 70, 10):
        write(tmp_path, step)
        checkpoints.rotate(tmp_path, at(tmp_path, step), keep, every)
    assert names(tmp_path) == whole(*left)


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("fault", ["a flipped bit", "cut short", "no marker"])
def test_a_broken_later_one_does_not_push_out_the_good_ones(tmp_path, fault, keep):
    """The run went back to step 80 because 100 is broken, and then saves at other steps."""
    write(tmp_path, 70, 80, 100)
    FAULTS[fault][0](at(tmp_path, 100))
    write(tmp_path, 90)
    checkpoints.rotate(tmp_path, at(tmp_path, 90), keep)
    with pytest.warns(UserWarning, match="Passing over"):
        assert checkpoints.newest(tmp_path) == at(tmp_path, 90)
    assert at(tmp_path, 80).exists() == (keep == 2)
    assert not at(tmp_path, 70).exists()


def test_an_unfinished_one_counts_for_nothing_in_the_rotation(tmp_path):
    write(tmp_path, 10, 20, 30)
    checkpoints.marker(at(tmp_path, 20)).unlink()
    checkpoints.rotate(tmp_path, at(tmp_path, 30), keep=2)
    assert names(tmp_path) == sorted([*whole(10, 30), "step-00000020.ckpt"])
    write(tmp_path, 40)
    checkpoints.rotate(tmp_path, at(tmp_path, 40), keep=2)
    assert names(tmp_path) == whole(30, 40)


def test_files_of_other_names_are_left_alone(tmp_path):
    write(tmp_path, 10, 20)
    for name in ("step-00000010 (copy).ckpt", "step-best.ckpt", "mine.ckpt"):
        (tmp_path / checkpoints.CHECKPOINTS / name).write_bytes(b"mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.newest(tmp_path) == at(tmp_path, 20)
    checkpoints.rotate(tmp_path, at(tmp_path, 20), keep=1)
    assert len(names(tmp_path)) == 5


def test_a_payload_is_not_run(tmp_path):
    """A whole, marked checkpoint that would call os.system when unpickled."""
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    checkpoints.write({"global_step": 1, "state_dict": Payload()}, at(tmp_path, 1))
    with pytest.raises(UserError, match="is none"):
        checkpoints.read(at(tmp_path, 1))
    assert not canary.exists()


def test_keep_of_none_is_refused():
    with pytest.raises(ValueError, match=r"checkpoint\.keep is 0"):
        SaveCheckpoints(keep=0)


def test_a_run_keeps_what_it_is_told_to(few_digits, tmp_path):
    save = {"every_n_steps": 2, "keep": 2, "keep_every_n_steps": 4}
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 11, save=save)
    assert names(tmp_path) == whole(4, 8, 10, 11)


@pytest.mark.parametrize("error", ERRORS[:2], ids=["ENOSPC", "PermissionError"])
def test_a_run_that_cannot_save_stops_with_the_error_and_keeps_the_old_one(few_digits, tmp_path, monkeypatch, error):
    """Lightning's own writer swallows a PermissionError and goes on as if it had saved."""
    fit(diffusion_task(), digit_data(few_digits), tmp_path, 2)
    with monkeypatch.context() as patch:
        fail_in_save(patch, error)
        with pytest.raises(type(error)):
            fit(diffusion_task(), digit_data(few_digits), tmp_path, 6)
    assert checkpoints.newest(tmp_path) == at(tmp_path, 2)
    assert names(tmp_path) == whole(1, 2)


@pytest.mark.parametrize("task", [autoencoder_task, diffusion_task])
def test_the_state_that_was_saved_is_plain_data(few_digits, tmp_path, task):
    fit(task(), digit_data(few_digits), tmp_path, 1)
    loaded = torch.load(at(tmp_path, 1), weights_only=True)
    assert loaded["global_step"] == 1


def test_one_process_at_a_time_takes_a_run_folder(tmp_path):
    command = "import sys, pathlib; from ldm.checkpoints import occupy; occupy(pathlib.Path(sys.argv[1]))"
    other = [sys.executable, "-c", command, str(tmp_path)]
    with checkpoints.occupy(tmp_path):
        told = subprocess.run(other, capture_output=True, text=True)
        assert "Another process trains in" in told.stderr
    assert subprocess.run(other).returncode == 0
