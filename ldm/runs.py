"""Run folders and exports: how a trained model comes back from disk.

A run folder holds config.yaml and checkpoints/; an export holds config.yaml and model.safetensors, self-contained.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm import checkpoints
from ldm.autoencoders import Autoencoder
from ldm.errors import UserError
from ldm.tasks import AutoencoderTask, DiffusionTask, Task

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
# What only training needs; a model is rebuilt without it, so no optimizer of a stranger's config is ever imported.
TRAINING_KEYS = ("optimizer", "lr_scheduler", "compile")


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
    locate_autoencoder(model, folder)
    task = build(model, folder, trust_code)
    state = read_state(folder, weights, task)
    try:
        task.load_state_dict(state, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise UserError(
            f"The weights in {folder} do not fit its {CONFIG} ({first[0].strip()[:200]}): they are of another model or "
            "of another version of ldm."
        ) from None
    return task.eval()


def load_diffusion(folder: str | Path, weights: str = "ema", trust_code: bool = False) -> DiffusionTask:
    """`load`, of a folder that must hold a diffusion model."""
    task = load(folder, weights, trust_code)
    if not isinstance(task, DiffusionTask):
        raise UserError(f"{folder} holds an autoencoder: give the run folder of a diffusion model.")
    return task


def load_autoencoder(run: str) -> Autoencoder:
    """The trained autoencoder of a run folder or an export.

    Args:
        run: run folder or export of an autoencoder, or of a diffusion model, whose autoencoder is then taken.
    """
    task = load(run)
    assert isinstance(task, AutoencoderTask | DiffusionTask)
    if task.autoencoder.latent_samples == 0:
        raise UserError(
            f"The autoencoder of {run} is not finished: its latent mean and std are measured when its training ends. "
            "Run its `fit` command again to the end."
        )
    return task.autoencoder


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
        return {"model": dict(config["model"]), "data": (config.get("data") or {}).get("init_args") or {}}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} has no model block that can be read: restore it, or train again.") from None


def read_model_config(folder: Path) -> dict[str, Any]:
    """The model block of a folder's config.yaml, without what only training needs."""
    model = read_config(folder)["model"]
    init_args = {k: v for k, v in model.get("init_args", {}).items() if k not in TRAINING_KEYS}
    return {"class_path": model.get("class_path"), "init_args": init_args}


def trained_size(folder: Path) -> int | None:
    """The side in pixels of the images that a run was trained on, None where its config does not say."""
    return read_config(folder)["data"].get("size")


def locate_autoencoder(model: dict[str, Any], folder: Path) -> None:
    """Where the config names the autoencoder's run by a relative path, find it also from another working directory."""
    init_args = (model["init_args"].get("autoencoder") or {}).get("init_args") or {}
    run = init_args.get("run")
    if run is None or Path(run).exists():
        return
    for parent in folder.resolve().parents:
        if (parent / run / CONFIG).is_file():
            init_args["run"] = str(parent / run)
            return
    raise UserError(
        f"{folder} needs the autoencoder in {run}, which is neither there from {Path.cwd()} nor from a folder above "
        "the run: put it back, or sample from an export, which carries its autoencoder."
    )


def build(model: dict[str, Any], folder: Path, trust_code: bool) -> Task:
    """Instantiate a model block. Classes from outside ldm are refused unless `trust_code` is set."""
    for class_path in class_paths(model):
        if not class_path.startswith("ldm.") and not trust_code:
            raise UserError(
                f"{folder / CONFIG} names {class_path}, which is not part of ldm: if you trust its author and have its "
                "code, pass --trust-code."
            )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "model", required=True)
    try:
        return parser.instantiate(parser.parse_object({"model": model})).model
    except ArgumentError as error:
        raise UserError(f"{folder / CONFIG} does not describe a model of this version of ldm: {error}") from None


def class_paths(node: Any) -> list[str]:
    """Every class_path in a nested config."""
    if isinstance(node, list):
        return [path for item in node for path in class_paths(item)]
    if not isinstance(node, dict):
        return []
    own = [str(node["class_path"])] if "class_path" in node else []
    return own + [path for value in node.values() for path in class_paths(value)]


def read_state(folder: Path, weights: str, task: Task) -> dict[str, Tensor]:
    """The full state dict for `task`: from the export, or from the newest whole checkpoint and the frozen parts."""
    if (folder / WEIGHTS).is_file():
        return load_file(folder / WEIGHTS)
    path = checkpoints.newest(folder)
    if path is None:
        raise UserError(f"{folder} has no whole checkpoint in {checkpoints.CHECKPOINTS}/: train it first.")
    checkpoint = checkpoints.read(path)
    task.on_load_checkpoint(checkpoint)  # adds the frozen parts, and refuses another autoencoder
    averages = checkpoint.get("ema", {})
    if weights != "raw" and weights not in ("ema", *averages):
        raise UserError(f"{path} has no weights {weights!r}: choose raw, ema, or one of {', '.join(averages) or '-'}.")
    if weights != "raw" and averages:
        decay = next(iter(averages)) if weights == "ema" else weights
        checkpoint["state_dict"].update(averages[decay]["weights"])
    return checkpoint["state_dict"]


def export(run: str | Path, out: str | Path, weights: str = "ema", force: bool = False) -> Path:
    """Write a run as model.safetensors and config.yaml, the autoencoder included, and return the folder.

    Args:
        run: the run folder.
        out: the folder to make.
        weights: as for `load`.
        force: replace `out` if it exists.
    """
    run, out = Path(run), Path(out)
    if out.exists() and not force:
        raise UserError(f"{out} exists already: give another folder, or --force to replace it.")
    task = load(run, weights)
    model = read_model_config(run)
    locate_autoencoder(model, run)
    embed_autoencoder(model)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in task.state_dict().items()}, part / WEIGHTS)
    data = {"init_args": {"size": trained_size(run)}}
    (part / CONFIG).write_text(yaml.safe_dump({"model": model, "data": data}, sort_keys=False))
    if out.exists():
        shutil.rmtree(out)
    os.replace(part, out)
    return out


def embed_autoencoder(model: dict[str, Any]) -> None:
    """Replace the reference to an autoencoder's run by that autoencoder's own description."""
    block = model["init_args"].get("autoencoder")
    while block and block["class_path"] == "ldm.runs.load_autoencoder":
        block = read_model_config(Path(block["init_args"]["run"]))["init_args"]["autoencoder"]
        model["init_args"]["autoencoder"] = block
