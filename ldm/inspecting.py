"""What lies at a path, as plain data: shards, a run, an export, a weight file; and the contract of its latents."""

import json
import math
from pathlib import Path
from typing import Any

from torch import nn

from ldm import checkpoints, runs
from ldm.autoencoders import Autoencoder
from ldm.autoencoders.base import FROM_ELSEWHERE
from ldm.data import LatentContract, Manifest, verify
from ldm.data.index import scan
from ldm.data.manifest import MANIFEST
from ldm.data.stamp import read_stamp
from ldm.errors import UserError
from ldm.exports import CONFIG, WEIGHTS
from ldm.foreign import models_in
from ldm.tasks import AutoencoderTask, DiffusionTask

DIGITS = 6  # of a published factor


def facts(path: Path, read_all: bool = False, trust_code: bool = False) -> dict[str, Any]:
    """Everything that is known of a path, ready for JSON; "kind" says what it is, "latents" is the contract.

    Args:
        path: a folder of shards, one shard of latents, a run folder, an export, or a weight file of another code base.
        read_all: compare the content of every shard with its manifest.
        trust_code: let a run's config name classes from outside ldm, which runs their code.

    Raises:
        UserError: there is nothing, or nothing that can be read.
    """
    if not path.exists():
        raise UserError(f"There is no {path}: give a folder of shards, a run folder, an export or a weight file.")
    if path.is_file():
        return shard_facts(path) if path.suffix == ".tar" else foreign_facts(path)
    if (path / CONFIG).is_file():
        return model_facts(path, trust_code)
    if not (path / MANIFEST).is_file() and not any(path.glob("*.tar*")) and not any(path.glob(f"*/{MANIFEST}")):
        raise UserError(f"{path} holds neither {MANIFEST} nor {CONFIG}: it is no folder of shards, no run, no export.")
    manifest = verify(path) if read_all else Manifest.load(path)
    return set_facts(manifest) | {"checked": read_all}


def set_facts(manifest: Manifest) -> dict[str, Any]:
    """Of a folder of shards."""
    return {
        "kind": "latent shards" if manifest.latents else "image shards",
        "samples": manifest.num_samples,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "labels": manifest.has_labels,
        "classes": manifest.classes,
        "captions": manifest.has_captions,
        "fields": manifest.fields,
        "texts": {text.name: text.fingerprint for text in manifest.texts},
        "formats": manifest.formats,
        "sizes": manifest.sizes,
        "latents": contract_facts(manifest.latents) if manifest.latents else None,
    }


def shard_facts(shard: Path) -> dict[str, Any]:
    """Of one shard, which tells its contract if it was written under one."""
    contract = read_stamp(shard)
    return {
        "kind": "one shard",
        "samples": len(scan(shard)),
        "bytes": shard.stat().st_size,
        "latents": contract_facts(contract) if contract else None,
    }


def foreign_facts(file: Path) -> dict[str, Any]:
    """Of a weight file of another code base; the whole of Stable Diffusion holds two models."""
    found = models_in(file)
    weights = found[0].weights
    return {
        "kind": "weights of another code base",
        "holds": " and ".join(model.kind for model in found),
        "layout": " and ".join(model.layout.title for model in found),
        "tensors": len(weights),
        "values": sum(tensor.numel() for tensor in weights.values()),
        "latents": None,
    }


def model_facts(folder: Path, trust_code: bool) -> dict[str, Any]:
    """Of a run folder or an export."""
    task = runs.load(folder, trust_code=trust_code)
    parts: dict[str, nn.Module] = dict(task.trained_modules())
    latents, what = None, "a feature network"
    if isinstance(task, AutoencoderTask | DiffusionTask):
        parts = {"autoencoder": task.autoencoder, **parts}
        what = "an autoencoder" if isinstance(task, AutoencoderTask) else "a diffusion model"
        shape = task.net.sample_shape if isinstance(task, DiffusionTask) else None
        latents = autoencoder_facts(task.autoencoder, runs.trained_size(folder), shape)
    return {
        "kind": f"{'export' if (folder / WEIGHTS).is_file() else 'run'} of {what}",
        "checkpoint": checkpoint_facts(folder),
        "parameters": {name: count for name, part in parts.items() if (count := size_of(part))},
        "classes": runs.read_classes(folder),
        "latents": latents,
    }


def size_of(part: nn.Module) -> int:
    """Its parameters; an autoencoder of pixels and a loss without a discriminator have none."""
    return sum(parameter.numel() for parameter in part.parameters())


def checkpoint_facts(folder: Path) -> dict[str, Any] | None:
    """Of the newest whole checkpoint of a run; None of an export, which has none."""
    if (folder / WEIGHTS).is_file() or (path := checkpoints.newest(folder)) is None:
        return None
    return {"file": str(path), "step": json.loads(checkpoints.marker(path).read_text())["step"]}


def contract_facts(contract: LatentContract) -> dict[str, Any]:
    """The contract of stored latents."""
    size = contract.transform.get("size")
    return {
        "autoencoder": contract.autoencoder,
        "class": contract.autoencoder_class,
        "transform": contract.transform,
        "shape": contract.shape,
        "dtype": contract.dtype,
        "downsample": size // contract.shape[1] if size else None,
        **statistics_facts(contract.mean, contract.std, contract.num_samples),
    }


def autoencoder_facts(
    autoencoder: Autoencoder, size: int | None, shape: tuple[int, int, int] | None = None
) -> dict[str, Any]:
    """The contract that latents of an autoencoder will be under; None stands for what only `ldm encode` settles."""
    if shape is None and size is not None:
        shape = autoencoder.latent_shape(size, size)
    mean, std = autoencoder.latent_mean.tolist(), autoencoder.latent_std.tolist()
    return {
        "autoencoder": autoencoder.fingerprint(),
        "class": type(autoencoder).__name__,
        "transform": {"size": size, "crop": "center", "channels": autoencoder.in_channels},
        "shape": None if shape is None else list(shape),
        "dtype": None,
        "downsample": autoencoder.downsample,
        **statistics_facts(mean, std, int(autoencoder.latent_samples)),
    }


def statistics_facts(mean: list[float], std: list[float], num_samples: int) -> dict[str, Any]:
    """The two numbers per channel; `num_samples` is None where they were published without it, 0 if not measured."""
    known = None if num_samples == FROM_ELSEWHERE else num_samples
    return {"mean": mean, "std": std, "num_samples": known, "published": published(mean, std)}


def published(mean: list[float], std: list[float]) -> dict[str, float] | None:
    """As other code writes it where all channels have one mean and one std: latents = (z - shift) * scale."""
    one = all(math.isclose(x, values[0], rel_tol=1e-6) for values in (mean, std) for x in values)
    return {"scale": rounded(1 / std[0]), "shift": rounded(mean[0])} if one else None


def rounded(value: float) -> float:
    """Without the digits that float32 does not hold."""
    return float(f"{value:.{DIGITS}g}")
