"""Autoencoders of other code bases, made an export of ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm import runs
from ldm.autoencoders import QuantisedAutoencoder
from ldm.autoencoders.layouts.parts import norm_groups
from ldm.errors import UserError
from ldm.exports import write_export
from ldm.foreign import ForeignModel, read_foreign
from ldm.importing.blocks import block
from ldm.tasks import AutoencoderTask

CONFIG = "config.json"
WEIGHTS = [f"diffusion_pytorch_model{end}" for end in (".safetensors", ".fp16.safetensors", ".bin")]
WITHIN = (".", "vae", "vqvae")  # where a folder, of the model or of a pipeline, has them
SIZE = 256  # pixels, of all the first stages of latent diffusion
GROUPS = 32  # of every norm, unless config.json says otherwise
NUMBERS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "sample_size", "norm_num_groups")
FACTORS = "0.18215 for Stable Diffusion 1 and 2, 0.13025 for SDXL, 1.5305 and --shift 0.0609 for Stable Diffusion 3"


def import_autoencoder(file: Path, out: Path, scale: str | None, shift: str | None, size: int | None) -> None:
    """Make the export `out` of an autoencoder's weights; the options are those of `import_weights`."""
    file, config = locate(file)
    foreign = read_foreign(file, "autoencoder")
    model = block("ldm.tasks.AutoencoderTask", autoencoder=autoencoder_block(foreign))
    task: AutoencoderTask = runs.instantiate(AutoencoderTask, "model", model, file, trust_code=False)
    check_norms(task, config, file)
    foreign.load_into(task.autoencoder)
    quantised = isinstance(task.autoencoder, QuantisedAutoencoder)
    mean, std = statistics(config, quantised, scale, shift, file)
    size = config.get("sample_size") or SIZE if size is None else size
    try:
        task.autoencoder.latent_shape(size, size)
        task.autoencoder.set_statistics(mean, std, None)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    write_export(out, model, task, size, None)


def locate(file: Path) -> tuple[Path, dict[str, Any]]:
    """The weight file and what is written beside it, of a file (nothing) or of a folder of diffusers."""
    if not file.is_dir():
        return file, {}
    for folder in (file / name for name in WITHIN):
        weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
        if weights is not None and (folder / CONFIG).is_file():
            return weights, read_config(folder / CONFIG)
    raise UserError(
        f"{file} is no folder of an autoencoder in diffusers: neither it nor vae/ or vqvae/ in it has {CONFIG} and "
        f"{WEIGHTS[0]}. Give such a folder, or the weight file itself."
    )


def read_config(file: Path) -> dict[str, Any]:
    """diffusers' config.json, of a kind that we have."""
    try:
        config = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UserError(f"{file} cannot be read as JSON: fetch it again.") from None
    for key in NUMBERS:
        found = config.get(key)
        values = found if isinstance(found, list) else [found]
        if not all(value is None or isinstance(value, int | float) for value in values):
            raise UserError(f"{file} says {key}: {found}, which is no number: fetch it again.")
    name = config.get("_class_name", "AutoencoderKL")
    if name not in ("AutoencoderKL", "VQModel") or config.get("norm_type", "group") != "group":
        raise UserError(
            f"{file} describes a {name} that ldm has not: it knows AutoencoderKL, and VQModel without MoVQ."
        )
    if config.get("act_fn", "silu") not in ("silu", "swish"):
        raise UserError(f"{file} asks for the activation {config['act_fn']}: autoencoders here have silu.")
    return config


def autoencoder_block(foreign: ForeignModel) -> dict[str, Any]:
    """The autoencoder that the weights describe, as plain data."""
    arguments = foreign.arguments()
    quantiser = arguments.pop("quantiser", None)
    if quantiser is None:
        return block("ldm.autoencoders.KLAutoencoder", **arguments)
    described = block("ldm.autoencoders.quantisers.VQ", num_codes=quantiser.num_codes, width=quantiser.width)
    return block("ldm.autoencoders.QuantisedAutoencoder", quantiser=described, **arguments)


def check_norms(task: AutoencoderTask, config: Mapping[str, Any], file: Path) -> None:
    """The groups of a norm leave no trace in shapes, so those of our widths have to be those it was trained with."""
    trained, ours = config.get("norm_num_groups", GROUPS), norm_groups(task.autoencoder)
    if ours != {trained}:
        told = " and ".join(map(str, sorted(ours)))
        raise UserError(
            f"{file} was trained with {trained} groups in each norm, and an autoencoder of its widths has {told} here: "
            "its outputs would differ. Of a narrow model give the folder, whose config.json has norm_num_groups."
        )


def statistics(
    config: Mapping[str, Any], quantised: bool, scale: str | None, shift: str | None, file: Path
) -> tuple[float | list[float], float | list[float]]:
    """Mean and standard deviation of the raw latents. diffusers normalises (z - mean) * scaling_factor / std."""
    mean: float | list[float] = config.get("latents_mean") or config.get("shift_factor") or 0.0
    if shift is not None:
        mean = numbers(shift, "shift")
    if scale is not None:
        return mean, inverse(numbers(scale, "scale"))
    factor = config.get("scaling_factor")
    if config.get("latents_std") is not None:
        return mean, [std / (factor or 1.0) for std in config["latents_std"]]
    if factor is None and not quantised:
        raise UserError(
            f"Nothing says how large the latents of {file} are: pass --scale, the published factor ({FACTORS}), or a "
            "folder of diffusers whose config.json has scaling_factor."
        )
    return mean, inverse(1.0 if factor is None else factor)


def inverse(scale: float | list[float]) -> float | list[float]:
    """The standard deviation that a factor brings to 1."""
    values = scale if isinstance(scale, list) else [scale]
    if not all(value > 0 for value in values):
        raise UserError(f"The scale of latents is {scale}: give a positive factor, or one per latent channel.")
    return [1 / value for value in values] if isinstance(scale, list) else 1 / scale


def numbers(text: str, option: str) -> float | list[float]:
    """One number, or several with commas between."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--{option} is {text!r}: give a number, or one per latent channel with commas between."
        ) from None
    return values if len(values) > 1 else values[0]
