"""An export on disk: config.yaml and model.safetensors, which are whole or not there."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm.atomic import file_sha256
from ldm.errors import UserError
from ldm.tasks import AutoencoderTask, DiffusionTask, Task

CONFIG = "config.yaml"
CLASSES = "classes.json"  # the names of the classes that the model was trained on, where they had some
WEIGHTS = "model.safetensors"
ENCODERS = "encoders"  # the files of frozen encoders, where the model has some
OWN = (CONFIG, WEIGHTS, CLASSES, ENCODERS)


def write_export(
    out: Path,
    model: Mapping[str, Any],
    task: Task,
    size: int | None,
    classes: Sequence[str] | None,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Write a model as a folder that needs nothing else.

    Args:
        out: the folder; an older one is replaced, so ask `check_replaceable` first.
        model: the model block, whose autoencoder is described and not named.
        task: that model, with its weights.
        size: side in pixels of the images behind it, where that is known.
        classes: the names of its classes, where they have some.
        files: further files by their places in the folder, below encoders/: those that the model block names.
    """
    with replaced(out) as part:
        save_file({name: tensor.contiguous() for name, tensor in task.state_dict().items()}, part / WEIGHTS)
        config = {"model": dict(model), "data": {"init_args": {"size": size}}, "made": made(part / WEIGHTS, task)}
        (part / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
        if classes is not None:
            (part / CLASSES).write_text(json.dumps(list(classes), indent=1, ensure_ascii=False) + "\n")
        for place, file in (files or {}).items():
            (part / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, part / place)


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `out` if nothing is raised; an older `out` stays until then."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    os.replace(part, out)


def made(file: Path, task: Task) -> dict[str, str]:
    """What an export's config says of its weights: the fingerprint of the autoencoder, and the hash of the file."""
    said = {"autoencoder": fingerprint(task), "weights": file_sha256(file)}
    return {name: value for name, value in said.items() if value}


def fingerprint(task: Task) -> str:
    """Of a model's autoencoder; empty of a model without one."""
    return task.autoencoder.fingerprint() if isinstance(task, AutoencoderTask | DiffusionTask) else ""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of an export."""
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"Its {WEIGHTS} is broken ({error}): export the run again.") from None


def check_made(folder: Path, task: Task) -> None:
    """The model that was loaded from an export is the one that it was made of; of an older export nothing is known.

    Raises:
        UserError: its weights, or the files of its autoencoder, were exchanged.
    """
    said, given = read_made(folder), fingerprint(task)
    known = said.get("autoencoder", given)
    if known != given:
        raise UserError(
            f"It was made with autoencoder {known[:12]}, and it holds autoencoder {given[:12]}: latents of the one "
            "mean nothing to the other. Export the run again."
        )
    if "weights" in said and said["weights"] != file_sha256(folder / WEIGHTS):
        raise UserError(f"Its {WEIGHTS} is not the file that it was made with (sha256 differs): export the run again.")


def read_made(folder: Path) -> dict[str, str]:
    """What an export's config says of its weights, as `made`; empty of an older one."""
    said = yaml.safe_load((folder / CONFIG).read_text()).get("made")
    return {str(name): str(value) for name, value in said.items()} if isinstance(said, dict) else {}


def check_replaceable(out: Path, force: bool, files: Collection[str] = OWN) -> None:
    """Raise a UserError unless `out` is absent, an empty folder or, with `force`, holds an export and nothing else.

    `files` are what an export may consist of; left out, those of one in our own layout.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: give another name.")
    found = {path.name for path in out.iterdir()}
    foreign = sorted(found - {*files}) or unnamed_encoders(out)
    if foreign:
        other = foreign[0]
        raise UserError(f"{out} holds other things than an export, such as {other}: give another folder.")
    if found and not force:
        raise UserError(f"{out} exists already: give another folder, or --force to replace it.")


def unnamed_encoders(out: Path) -> list[str]:
    """What lies in the encoders/ of a folder without its config naming it, so that it is not an export's."""
    named = (out / CONFIG).read_text() if (out / CONFIG).is_file() and (out / WEIGHTS).is_file() else ""
    inside = [f"{ENCODERS}/{path.name}" for path in (out / ENCODERS).iterdir()] if (out / ENCODERS).is_dir() else []
    return sorted(name for name in inside if name not in named)
