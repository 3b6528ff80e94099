"""Checkpoint files that are either whole or not there, and the choice of the newest whole one.

A checkpoint is written beside its place, synced and renamed; a marker `<name>.ok` with its size and hash follows.
Without a marker that fits, a file does not count.
"""

import fcntl
import json
import os
import re
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from ldm.atomic import file_sha256, fsync_folder, write_bytes
from ldm.errors import UserError

CHECKPOINTS = "checkpoints"
LOCK = ".lock"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's reading and writing of checkpoints, through `write` and `read` of this file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        write(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read(Path(path), map_location="cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        remove(Path(path))


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint and then its marker; whatever happens in between, `path` is whole or does not count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        described = {
            "bytes": part.stat().st_size,
            "sha256": file_sha256(part),
            "step": checkpoint.get("global_step"),
        }
    except BaseException:
        part.unlink(missing_ok=True)  # a full disk is not to be filled with halves
        raise
    marker(path).unlink(missing_ok=True)  # only now: an older file of this name counted until here
    os.replace(part, path)
    fsync_folder(path.parent)
    write_bytes(marker(path), json.dumps(described).encode())


def marker(path: Path) -> Path:
    return path.with_name(path.name + ".ok")


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint file, or None if it is whole."""
    if not path.is_file():
        return "does not exist"
    if not marker(path).is_file():
        return "has no .ok marker: its writing was cut short"
    try:
        described = dict(json.loads(marker(path).read_text()))
    except (ValueError, TypeError):
        return "has an .ok marker that cannot be read"
    if path.stat().st_size != described.get("bytes"):
        return f"has {path.stat().st_size} bytes, and {described.get('bytes')} were written"
    if file_sha256(path) != described.get("sha256"):
        return "has other content than was written (sha256 differs)"
    return None


def read(path: Path, map_location: str = "cpu") -> dict[str, Any]:
    """Load a whole checkpoint; nothing in it can run code. Raises UserError if it is not whole."""
    wrong = fault(path)
    if wrong:
        raise UserError(f"The checkpoint {path} {wrong}: resume from another one in its folder, or delete it.")
    try:
        return dict(torch.load(path, map_location=map_location, weights_only=True))
    except Exception as error:  # whatever the unpickler trips over in a file of another kind
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"The checkpoint {path} is none of ldm's ({reason}): take it out of the folder.") from None


def listed(run: Path) -> list[Path]:
    """The checkpoint files of a run folder, oldest first, whole or not."""
    ours = (path for path in (run / CHECKPOINTS).glob("step-*.ckpt") if re.fullmatch(r"step-\d+", path.stem))
    return sorted(ours)


def newest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run folder; each newer one that is not whole is named in a warning."""
    for path in reversed(listed(run)):
        wrong = fault(path)
        if wrong is None:
            return path
        rank_zero_warn(f"Passing over the checkpoint {path}: it {wrong}.")
    return None


def rotate(run: Path, written: Path, keep: int, keep_every_n_steps: int | None = None) -> None:
    """Remove what is older than the newest `keep` whole checkpoints, save for multiples of `keep_every_n_steps`.

    The newest is `written`, the one just written and known to be whole. A later one that is still there was passed
    over, perhaps because it is broken, and must not push out the good ones.
    """
    oldest_kept = [path for path in listed(run) if marker(path).is_file() and path <= written][-keep:][:1]
    for path in listed(run):
        lasting = keep_every_n_steps and int(path.stem.removeprefix("step-")) % keep_every_n_steps == 0
        if oldest_kept and path < oldest_kept[0] and not lasting:
            remove(path)


def occupy(run: Path) -> IO[bytes] | None:
    """Take a run folder for this process, until the returned file is closed or the process ends, however it ends.

    Returns:
        None where the file system has no locks.

    Raises:
        UserError: another process writes there; two would overwrite each other's checkpoints.
    """
    run.mkdir(parents=True, exist_ok=True)
    file = (run / LOCK).open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which loader workers would inherit and keep
    except (BlockingIOError, PermissionError):
        file.close()
        raise UserError(f"Another process trains in {run}: wait for its end, or give another run folder.") from None
    except OSError:
        file.close()
        return None
    return file


def remove(path: Path) -> None:
    marker(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
