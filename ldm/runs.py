"""Run folders and exports: how a trained model comes back from disk.

A run folder holds config.yaml and checkpoints/; an export holds config.yaml and model.safetensors, self-contained.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from ldm import checkpoints
from ldm.autoencoders import Autoencoder
from ldm.conditioners import Conditioner
from ldm.diffusion import Process
from ldm.errors import UserError
from ldm.exports import CLASSES, CONFIG, WEIGHTS, check_made, read_weights
from ldm.frozen_files import locate_files
from ldm.tasks import AutoencoderTask, DiffusionTask, Task
from ldm.trust import AUTOENCODER_LOADER, foreign_names

# What only training needs; a model is rebuilt without it, so no optimizer of a stranger's config is ever imported.
TRAINING_KEYS = (
    "optimizer",
    "lr_scheduler",
    "compile",
    "init_from",
    "discriminator_optimizer",
    "discriminator_scheduler",
    "loss",
    "measures",
)


def load(folder: str | Path, weights: str = "ema", trust_code: bool = False) -> Task:
    """Rebuild the model of a run folder or an export, with its newest whole weights, on the CPU and in eval mode.

    Args:
        folder: the run folder or export.
        weights: "ema" (the first moving average, or the trained weights if there is none), "raw" (the trained
            weights), or the decay of an average, such as "0.9999".
        trust_code: let the config name classes from outside ldm, which runs their code.

    Raises:
        UserError: the folder is no run, holds no whole checkpoint, or its weights do not fit its config.
    """
    folder = Path(folder)
    model = read_model_config(folder)
    locate_autoencoder(model, folder, trust_code)
    locate_files(model, folder, trust_code)
    task = build(model, folder, trust_code)
    try:
        state = read_state(folder, weights, task)
        task.check_weights(state)
        task.load_state_dict(state, strict=True)
        if (folder / WEIGHTS).is_file():
            check_made(folder, task)
    except UserError as error:
        raise UserError(f"{folder} cannot be loaded. {error}") from None
    if isinstance(task, DiffusionTask):
        task.conditioner.name_classes(read_classes(folder))
    return task.eval()


def load_diffusion(folder: str | Path, weights: str = "ema", trust_code: bool = False) -> DiffusionTask:
    """`load`, of a folder that must hold a diffusion model."""
    task = load(folder, weights, trust_code)
    if not isinstance(task, DiffusionTask):
        what = "an autoencoder" if isinstance(task, AutoencoderTask) else "a feature network"
        raise UserError(f"{folder} holds {what}: give the run folder of a diffusion model.")
    return task


def load_autoencoder(run: str, trust_code: bool = False) -> Autoencoder:
    """The trained autoencoder of a run folder or an export.

    Args:
        run: run folder or export of an autoencoder, or of a diffusion model, whose autoencoder is then taken.
        trust_code: let that folder's config name classes from outside ldm, which runs their code.
    """
    task = load(run, trust_code=trust_code)
    if not isinstance(task, AutoencoderTask | DiffusionTask):
        raise UserError(f"{run} holds no autoencoder: give the run folder of one, or of a diffusion model.")
    check_measured(task.autoencoder, run)
    return task.autoencoder


def read_classes(folder: Path) -> list[str] | None:
    """The names of a run's classes, None where it has none."""
    try:
        return [str(name) for name in json.loads((folder / CLASSES).read_text())]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UserError(f"{folder / CLASSES} holds no list of class names: restore or remove it.") from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a run folder or an export."""
    path = folder / CONFIG
    if not path.is_file():
        found = "does not exist" if not folder.is_dir() else f"has no {CONFIG}"
        raise UserError(
            f"{folder} is not a run folder: it {found}. Give the folder that `ldm fit` or `ldm export` wrote."
        )
    try:
        config = yaml.safe_load(path.read_text())
        return {"model": dict(config["model"]), "data": dict((config.get("data") or {}).get("init_args") or {})}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} has no model block that can be read: restore it, or train again.") from None


def read_model_config(folder: Path) -> dict[str, Any]:
    """The model block of a folder's config.yaml, without what only training needs."""
    model = read_config(folder)["model"]
    init_args = model.get("init_args")
    if not isinstance(model.get("class_path"), str) or not isinstance(init_args, dict):
        raise UserError(f"{folder / CONFIG} has a model block without class_path or init_args: restore it.")
    return {
        "class_path": model["class_path"],
        "init_args": {k: v for k, v in init_args.items() if k not in TRAINING_KEYS},
    }


def trained_size(folder: Path) -> int | None:
    """The side in pixels of the images behind a run, None where no config says it.

    A run on latents does not say it; the run of its autoencoder does.
    """
    size = read_config(folder)["data"].get("size")
    if size is not None:
        return int(size)
    model = read_model_config(folder)
    locate_autoencoder(model, folder)
    references = autoencoder_references(model)
    return trained_size(Path(references[0]["init_args"]["run"])) if references else None


def autoencoder_references(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks {class_path: ldm.runs.load_autoencoder, init_args} by which a model block names its autoencoder, or
    others within that one's description."""
    return list(_references(model["init_args"].get("autoencoder")))


def _references(node: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(node, dict):
        return
    init_args = node.get("init_args")
    named = isinstance(init_args, dict) and isinstance(init_args.get("run"), str)
    if named and node.get("class_path") == AUTOENCODER_LOADER:
        yield node
    for value in node.values():
        yield from _references(value)


def locate_autoencoder(model: dict[str, Any], folder: Path, trust_code: bool = False) -> None:
    """Where the config names an autoencoder's run by a relative path, find it also from another working directory."""
    for reference in autoencoder_references(model):
        reference["init_args"]["trust_code"] = trust_code  # the caller's to give, never the file's
        run = reference["init_args"]["run"]
        if Path(run).exists():
            continue
        parents = folder.resolve().parents
        found = next((parent / run for parent in parents if (parent / run / CONFIG).is_file()), None)
        if found is None:
            raise UserError(
                f"{folder} needs the autoencoder in {run}, which is neither there from {Path.cwd()} nor from a folder "
                f"above the run: put it back, write its new place into {folder / CONFIG}, or use an export, which "
                "carries its own."
            )
        reference["init_args"]["run"] = str(found)


def build(model: dict[str, Any], folder: Path, trust_code: bool) -> Task:
    """Instantiate a model block. Classes from outside ldm are refused, unimported, unless `trust_code` is set."""
    made: Task = instantiate(Task, "model", model, folder / CONFIG, trust_code)
    return made


def instantiate(kind: type, what: str, block: Any, file: Path, trust_code: bool) -> Any:
    """The object of a kind that a block of a config file describes, under the rules of `build`."""
    for name in () if trust_code else foreign_names(block):
        raise UserError(
            f"{file} names {name}, which is not part of ldm: if you trust its author and have its code, "
            "pass --trust-code, where the command takes it."
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, what, required=True)
    try:
        plain = copy.deepcopy(block)  # the parser puts objects of its own into the lists of what it is given
        return getattr(parser.instantiate(parser.parse_object({what: plain})), what)
    except (ArgumentError, ValueError, TypeError) as error:
        cause = root_cause(error)
        if isinstance(cause, UserError):  # of the autoencoder's own folder
            raise cause from None
        reason = " ".join(str(cause).split())[:300]
        raise UserError(f"{file} does not describe a {what} of this version of ldm: {reason}") from None


def load_process(config: str | Path, trust_code: bool = False) -> Process:
    """The diffusion process of a training config or of a run folder; nothing else of it is built or read."""
    arguments = read_training_config(config)["model"]["init_args"]
    if not isinstance(arguments, dict) or arguments.get("diffusion") is None:
        raise UserError(f"{config} has no model.init_args.diffusion: give the config of a diffusion model.")
    process: Process = instantiate(Process, "diffusion", arguments["diffusion"], config_file(config), trust_code)
    return process


def load_conditioner(config: str | Path, trust_code: bool = False) -> Conditioner:
    """The conditioner of a training config or of a run folder, untrained; nothing else of it is built or read."""
    arguments = read_training_config(config)["model"]["init_args"]
    block = arguments.get("conditioner") if isinstance(arguments, dict) else None
    if block is None:
        raise UserError(f"{config} has no model.init_args.conditioner: give the config of a model that hears captions.")
    if Path(config).is_dir():
        locate_files(block, Path(config), trust_code)
    made: Conditioner = instantiate(Conditioner, "conditioner", block, config_file(config), trust_code)
    return made


def config_file(config: str | Path) -> Path:
    """A training config, or the one in a run folder."""
    path = Path(config)
    return path / CONFIG if path.is_dir() else path


def read_training_config(config: str | Path) -> dict[str, Any]:
    """A training config as plain data, with model.init_args and data.init_args, which may be empty."""
    path = config_file(config)
    if not path.is_file():
        raise UserError(f"There is no file {path}: give a training config, one of configs/ or of a run folder.")
    try:
        read = yaml.safe_load(path.read_text())
        blocks = {name: dict(read.get(name) or {}) for name in ("model", "data")}
    except (yaml.YAMLError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} is no training config that can be read: give a YAML such as in configs/.") from None
    return {name: {**block, "init_args": block.get("init_args") or {}} for name, block in blocks.items()}


def root_cause(error: BaseException) -> BaseException:
    """What a constructor said, below the parser's accounts of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def read_state(folder: Path, weights: str, task: Task) -> dict[str, Tensor]:
    """The full state dict for `task`: from the export, or from the newest whole checkpoint and the frozen parts."""
    if (folder / WEIGHTS).is_file():
        if weights != "ema":
            raise UserError(f"It is an export, which holds one set of weights: there is no {weights!r} to choose.")
        return read_weights(folder)
    path = checkpoints.newest(folder)
    if path is None:
        raise UserError(f"{folder} has no whole checkpoint in {checkpoints.CHECKPOINTS}/: train it first.")
    checkpoint = checkpoints.read(path)
    checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if not task.is_training_only(k)}
    task.on_load_checkpoint(checkpoint)  # adds the frozen parts, and refuses another autoencoder
    averages = checkpoint.get("ema", {})
    if weights != "raw" and weights not in ("ema", *averages):
        raise UserError(f"{path} has no weights {weights!r}: choose raw, ema, or one of {', '.join(averages) or '-'}.")
    if weights != "raw" and averages:
        decay = next(iter(averages)) if weights == "ema" else weights
        checkpoint["state_dict"].update(averages[decay]["weights"])
    return checkpoint["state_dict"]


def check_measured(autoencoder: Autoencoder, run: str | Path) -> None:
    """Raise a UserError unless the autoencoder has its latent statistics."""
    if autoencoder.latent_samples == 0:
        raise UserError(
            f"The autoencoder of {run} is not finished: its latent mean and std are measured when its training ends. "
            "Run its `fit` command again to the end."
        )
