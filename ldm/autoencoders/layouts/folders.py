"""What other code bases read an autoencoder from: its weights by their names, and a config of theirs beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.layouts.compvis import CompVis
from ldm.autoencoders.layouts.diffusers import Diffusers
from ldm.autoencoders.layouts.parts import norm_groups
from ldm.errors import UserError

SIZE = 256  # pixels; what is written of an autoencoder whose images are of no known size
IDENTITY = {"target": "torch.nn.Identity"}  # for a loss: sampling needs none
FILES = {  # of each layout's folder
    "diffusers": ("config.json", "diffusion_pytorch_model.safetensors"),
    "compvis": ("config.yaml", "model.ckpt"),
}


def write_folder(layout: str, folder: Path, model: Autoencoder, size: int | None) -> None:
    """Write a trained autoencoder as another code base reads it.

    Args:
        layout: diffusers or compvis.
        folder: an empty folder.
        model: with its latent statistics.
        size: side in pixels of the images that it was trained on, where it is known.

    Raises:
        UserError: the layout has no names for a part of `model`.
    """
    writers: dict[str, Callable[[Path, Autoencoder, int], None]] = {
        "diffusers": write_diffusers,
        "compvis": write_compvis,
    }
    writers[layout](folder, model, size or SIZE)


def write_diffusers(folder: Path, model: Autoencoder, size: int) -> None:
    """The folder that `from_pretrained` of AutoencoderKL or of VQModel takes."""
    layout, (config, file) = Diffusers(), FILES["diffusers"]
    weights = layout.written(model.state_dict(), model)
    described = diffusers_config(layout.describe(weights), norm_groups(model).pop(), size)
    described |= diffusers_statistics(model.latent_mean, model.latent_std)
    (folder / config).write_text(json.dumps(described, indent=2) + "\n")
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, folder / file, {"format": "pt"})


def diffusers_config(told: dict[str, Any], groups: int, size: int) -> dict[str, Any]:
    """config.json, of the arguments that describe the autoencoder; but for the statistics."""
    quantiser, levels = told.get("quantiser"), range(len(told["channel_multipliers"]))
    attention = [level in told["attention_levels"] for level in levels]
    config = {
        "_class_name": "AutoencoderKL" if quantiser is None else "VQModel",
        "act_fn": "silu",
        "block_out_channels": [told["channels"] * multiplier for multiplier in told["channel_multipliers"]],
        "down_block_types": ["AttnDownEncoderBlock2D" if some else "DownEncoderBlock2D" for some in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if some else "UpDecoderBlock2D" for some in reversed(attention)],
        "in_channels": told["in_channels"],
        "out_channels": told["in_channels"],
        "latent_channels": told["latent_channels"] if quantiser is None else quantiser.width,
        "layers_per_block": told["num_res_blocks"],
        "mid_block_add_attention": told["middle_attention"],
        "norm_num_groups": groups,
        "sample_size": size,
    }
    if quantiser is not None:
        config |= {"num_vq_embeddings": quantiser.num_codes, "vq_embed_dim": quantiser.width}
    return config


def diffusers_statistics(mean: Tensor, std: Tensor) -> dict[str, Any]:
    """scaling_factor, and shift_factor where one is needed; per channel latents_mean and latents_std instead."""
    if len({*mean.tolist()}) > 1 or len({*std.tolist()}) > 1:
        return {"scaling_factor": 1.0, "latents_mean": mean.tolist(), "latents_std": std.tolist()}
    factors = {"scaling_factor": shortest(std[0], lambda factor: 1 / factor)}
    return factors if mean[0] == 0 else {**factors, "shift_factor": shortest(mean[0], float)}


def shortest(value: Tensor, back: Callable[[float], float]) -> float:
    """The number of the fewest digits that `back` makes this float32 of, and `back` is its own inverse."""
    exact = back(value.item())
    rounded = (float(f"{exact:.{digits}g}") for digits in range(1, 17))
    return next((number for number in rounded if torch.tensor(back(number)) == value.cpu()), exact)


def write_compvis(folder: Path, model: Autoencoder, size: int) -> None:
    """config.yaml and model.ckpt, as the published first stages come; a comment tells the scale factor."""
    layout, (config, file) = CompVis(), FILES["compvis"]
    weights = layout.written(model.state_dict(), model)
    described = yaml.safe_dump(compvis_config(layout.describe(weights), size, layout.title), sort_keys=False)
    (folder / config).write_text(f"# {compvis_statistics(model.latent_mean, model.latent_std)}\n{described}")
    torch.save({"state_dict": {key: tensor.clone() for key, tensor in weights.items()}}, folder / file)


def compvis_config(told: dict[str, Any], size: int, title: str) -> dict[str, Any]:
    """The model of a config of theirs, of the arguments that describe the autoencoder."""
    quantiser, levels = told.get("quantiser"), told["attention_levels"]
    if levels and not told["middle_attention"]:
        raise UserError(
            f"{title} has attention in the middle wherever it has some at levels, and this autoencoder has none there: "
            "write it in the layout of diffusers."
        )
    latent_channels = told["latent_channels"] if quantiser is None else quantiser.width
    ddconfig = {
        "double_z": quantiser is None,
        "z_channels": latent_channels,
        "resolution": size,
        "in_channels": told["in_channels"],
        "out_ch": told["in_channels"],
        "ch": told["channels"],
        "ch_mult": told["channel_multipliers"],
        "num_res_blocks": told["num_res_blocks"],
        "attn_resolutions": [size // 2**level for level in levels],
        "dropout": 0.0,
        **({} if told["middle_attention"] else {"attn_type": "none"}),
    }
    params = {"embed_dim": latent_channels, **({} if quantiser is None else {"n_embed": quantiser.num_codes})}
    target = "ldm.models.autoencoder." + ("AutoencoderKL" if quantiser is None else "VQModel")  # a place in their code
    return {"model": {"target": target, "params": {**params, "ddconfig": ddconfig, "lossconfig": IDENTITY}}}


def compvis_statistics(mean: Tensor, std: Tensor) -> str:
    if len({*std.tolist()}) == 1 and not mean.any():
        return f"scale_factor of LatentDiffusion: {shortest(std[0], lambda factor: 1 / factor)}"
    return f"LatentDiffusion normalises by one factor; these latents have mean {mean.tolist()}, std {std.tolist()}"
