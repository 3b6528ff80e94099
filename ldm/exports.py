"""An export on disk: config.yaml and model.safetensors, which are whole or not there."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from ldm.errors import UserError

CONFIG = "config.yaml"
CLASSES = "classes.json"  # the names of the classes that the model was trained on, where they had some
WEIGHTS = "model.safetensors"
ENCODERS = "encoders"  # the files of frozen encoders, where the model has some


def write_export(
    out: Path,
    model: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    size: int | None,
    classes: Sequence[str] | None,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Write a model as a folder that needs nothing else.

    Args:
        out: the folder; an older one is replaced, so ask `check_replaceable` first.
        model: the model block, whose autoencoder is described and not named.
        weights: the full state dict of that model.
        size: side in pixels of the images behind it, where that is known.
        classes: the names of its classes, where they have some.
        files: further files by their places in the folder, below encoders/: those that the model block names.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part / WEIGHTS)
    config = {"model": dict(model), "data": {"init_args": {"size": size}}}
    (part / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    if classes is not None:
        (part / CLASSES).write_text(json.dumps(list(classes), indent=1, ensure_ascii=False) + "\n")
    for place, file in (files or {}).items():
        (part / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, part / place)
    if out.exists():
        shutil.rmtree(out)
    os.replace(part, out)


def check_replaceable(out: Path, force: bool) -> None:
    """Raise a UserError unless `out` is absent, an empty folder or, with `force`, holds an export and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: give another name.")
    found = {path.name for path in out.iterdir()}
    foreign = sorted(found - {CONFIG, WEIGHTS, CLASSES, ENCODERS}) or unnamed_encoders(out)
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
