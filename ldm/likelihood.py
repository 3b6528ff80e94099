"""How probable a trained diffusion model holds images."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from ldm.atomic import write_bytes
from ldm.data import Manifest, ShardData, ShardDataset
from ldm.data.dataset import collate
from ldm.data.transform import ImageTransform
from ldm.diffusion.likelihood import Likelihood, Term, bits, total
from ldm.errors import UserError
from ldm.sampling import ImageNoise
from ldm.tasks import DiffusionTask

LEVELS = 256  # values of an 8-bit pixel


@dataclass
class Measured:
    """What was found over a set of images, all in bits per dimension.

    Attributes:
        images: one figure an image.
        terms: names and times of the terms, as (name, t) in the order in which they were computed.
        sums: the sum of each term over the images.
    """

    images: list[float] = field(default_factory=list)
    terms: list[tuple[str, float]] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)

    def add(self, terms: list[Term]) -> None:
        """One batch more."""
        self.images += bits(total(terms)).tolist()
        self.terms = [(term.name, term.t) for term in terms]
        new = [float(bits(term.nats.double()).sum()) for term in terms]
        self.sums = [old + more for old, more in zip(self.sums or [0.0] * len(new), new, strict=True)]

    @property
    def mean(self) -> float:
        return float(np.mean(self.images))

    @property
    def standard_error(self) -> float:
        """Of the mean; infinite for one image."""
        count = len(self.images)
        return float(np.std(self.images, ddof=1) / math.sqrt(count)) if count > 1 else math.inf

    def means(self) -> list[tuple[str, float, float]]:
        """(name, t, mean over the images) of each term."""
        return [(*term, value / len(self.images)) for term, value in zip(self.terms, self.sums, strict=True)]

    def by_name(self) -> dict[str, float]:
        """The terms of each name together."""
        found: dict[str, float] = {}
        for name, _, value in self.means():
            found[name] = found.get(name, 0.0) + value
        return found


@dataclass(frozen=True)
class Images:
    """The images of a packed or encoded set that a model is asked about: `num_images`, spread evenly over the set.

    Args:
        task: the diffusion model; its path and its autoencoder have to suit.
        shards: folder of image shards, or of latent shards made with the model's autoencoder.
        num_images: at most this many; 0: all.

    Raises:
        UserError: the set does not fit the model.
    """

    task: DiffusionTask
    shards: str
    num_images: int

    def __post_init__(self) -> None:
        latents = Manifest.load(self.shards).kind == "latents"
        channels = self.task.autoencoder.in_channels
        if channels not in (1, 3):
            raise UserError(f"The model works on {channels} channels: images have 1 or 3.")
        data = ShardData(self.shards, size=None if latents else self.size, channels=channels, flip=False)  # type: ignore[arg-type]
        data.setup()
        try:
            self.task.check_data(data)
        except ValueError as error:
            raise UserError(str(error)) from None

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.task.net.sample_shape[1] * self.task.autoencoder.downsample

    def __len__(self) -> int:
        stored = Manifest.load(self.shards).num_samples
        return min(self.num_images or stored, stored)

    def batches(self, batch_size: int) -> Iterator[tuple[range, dict[str, Any]]]:
        """Places among the chosen images, and the batch that holds them."""
        transform = ImageTransform(self.size, "center", flip=False)
        dataset = ShardDataset(self.shards, transform, self.task.autoencoder.in_channels)
        chosen = np.linspace(0, len(dataset), len(self), endpoint=False).astype(int).tolist()
        for start in range(0, len(self), batch_size):
            batch = collate([dataset.load(place) for place in chosen[start : start + batch_size]])
            assert isinstance(batch, dict)
            yield range(start, start + len(batch["keys"])), batch


def check_method(method: Likelihood, task: DiffusionTask) -> None:
    """Raise a UserError if the method has no meaning for the model."""
    try:
        method.check(task.diffusion.path)
        task.check_variance(getattr(method, "variance", None))
    except ValueError as error:
        raise UserError(f"The method does not fit the model: {error}") from None


@torch.no_grad()  # not inference mode: the ODE differentiates the network
def measure(
    task: DiffusionTask,
    images: Images,
    method: Likelihood,
    seed: int,
    batch_size: int,
    fabric: Fabric,
    advance: Callable[[int], None],
) -> Measured:
    """Bits per dimension of each image, under its own conditions where the model has some.

    Image i has the noise of seed + i, whatever its batch. `advance` is told the images that each term was for.
    """
    path, found = task.diffusion.path, Measured()
    levels = LEVELS if task.autoencoder.in_pixels else None
    for places, batch in images.batches(batch_size):
        here = {name: value.to(fabric.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        noise = ImageNoise([seed + place for place in places], task.net.sample_shape, fabric.device)
        with fabric.autocast():
            x0 = task.encode(here, noise())
            x0 = to_grid(x0) if levels else x0
            cond = task.conditioner(here, drop=torch.zeros(len(places), dtype=torch.bool, device=fabric.device))
            denoise, terms = task.diffusion.denoiser(task.net, cond, remember=False), []
            for term in method.terms(denoise, path, x0, noise, levels):  # type: ignore[arg-type]
                terms.append(term)
                advance(len(places))
        found.add(terms)
    return found


def to_grid(images: Tensor) -> Tensor:
    """Images in [-1, 1] at the nearest of the values that 8 bits have."""
    half = (LEVELS - 1) / 2
    return ((images + 1) * half).round() / half - 1


def write_report(path: Path, about: dict[str, Any], found: Measured) -> None:
    """What was asked and found, as JSON."""
    report = {
        **about,
        "num_images": len(found.images),
        "bits_per_dim": found.mean,
        "standard_error": found.standard_error if len(found.images) > 1 else None,
        "parts": found.by_name(),
        "terms": [{"name": name, "t": t, "bits_per_dim": value} for name, t, value in found.means()],
        "images": found.images,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(report, indent=1) + "\n").encode())
