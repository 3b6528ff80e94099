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
from ldm.autoencoders.fingerprint import fingerprint_of
from ldm.errors import UserError

CONFIG = "config.yaml"
CLASSES = "classes.json"  # the names of the classes that the model was trained on, where they had some
WEIGHTS = "model.safetensors"
AUTOENCODER = "autoencoder."  # what the names of an autoencoder's weights begin with, in a model of either kind
ENCODERS = "encoders"  # the files of frozen encoders, where the model has some
OWN = (CONFIG, WEIGHTS, CLASSES, ENCODERS)


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
    with replaced(out) as part:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part / WEIGHTS)
        config = {"model": dict(model), "data": {"init_args": {"size": size}}, "made": made(part / WEIGHTS, weights)}
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


def made(file: Path, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """What an export's config says of its weights: the hash of the file, and the fingerprint of the autoencoder."""
    return {"autoencoder": autoencoder_in(weights), "weights": file_sha256(file)}


def autoencoder_in(weights: Mapping[str, Tensor]) -> str:
    """The fingerprint of the autoencoder in a model's state dict."""
    own = {name.removeprefix(AUTOENCODER): tensor for name, tensor in weights.items() if name.startswith(AUTOENCODER)}
    return fingerprint_of(own)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of an export, which has to be the one that it was made with.

    Raises:
        UserError: its weights are broken or were exchanged; of an export older than its hashes the latter goes unseen.
    """
    file = folder / WEIGHTS
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise UserError(f"Its {WEIGHTS} is broken ({error}): export the run again.") from None
    said = read_made(folder)
    known, given = said.get("autoencoder", ""), autoencoder_in(weights)
    if known not in ("", given):
        raise UserError(
            f"It was made with autoencoder {known[:12]}, and its {WEIGHTS} holds autoencoder {given[:12]}: latents of "
            "the one mean nothing to the other. Export the run again."
        )
    if "weights" in said and said["weights"] != file_sha256(file):
        raise UserError(f"Its {WEIGHTS} is not the file that it was made with (sha256 differs): export the run again.")
    return weights


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
