"""Two sets of latents side by side: whether they may be mixed, and how far apart they are."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm import runs
from ldm.autoencoders.profile import LatentProfile, Profile
from ldm.data import LatentContract, Manifest, ShardDataset, load_index
from ldm.data.transform import ImageTransform
from ldm.data.verify import check_shards
from ldm.errors import UserError
from ldm.exports import CONFIG
from ldm.latent_folder import make_contract

BATCH = 32  # latents that are in hand at once


class Latents(ABC):
    """Normalised latents that can be asked for by their keys.

    Attributes:
        place: where they are, as the user says it.
        contract: what they are latents of.
        dataset: the samples behind them.
        keys: of all samples, in stored order.
    """

    def __init__(self, place: str, contract: LatentContract, dataset: ShardDataset) -> None:
        self.place, self.contract, self.dataset = place, contract, dataset
        shards = dataset.manifest.shards
        indexes = (load_index(dataset.reader.folder / s.name, s.samples, s.sha256) for s in shards)
        self.keys = [key for index in indexes for key in index.keys]

    @abstractmethod
    def means(self, samples: list[dict[str, Any]]) -> Tensor:
        """The posteriors' means (B, C, h, w) of samples of `dataset`."""

    def batches(self, places: Sequence[int]) -> Iterator[Tensor]:
        """`means` of the samples at these places, in batches."""
        for start in range(0, len(places), BATCH):
            yield self.means([self.dataset.load(place) for place in places[start : start + BATCH]])


class StoredLatents(Latents):
    """Latents in a folder that `ldm encode` made."""

    def __init__(self, folder: str) -> None:
        if (Path(folder) / CONFIG).is_file():
            raise UserError(f"{folder} is a run or an export: pass --shards, the images that both are to encode.")
        manifest = Manifest.load(folder)
        if manifest.latents is None:
            raise UserError(f"{folder} holds images: give two folders of latents, or two autoencoders and --shards.")
        check_shards(folder, manifest)
        super().__init__(folder, manifest.latents, ShardDataset(folder))

    def means(self, samples: list[dict[str, Any]]) -> Tensor:
        return torch.stack([sample["moments"] for sample in samples]).chunk(2, dim=1)[0]


class EncodedLatents(Latents):
    """Latents that an autoencoder makes of images when they are asked for, at the size that it was trained at."""

    def __init__(self, run: str, shards: str, trust_code: bool) -> None:
        self.autoencoder = runs.load_autoencoder(run, trust_code).requires_grad_(False)
        size = runs.trained_size(Path(run))
        if size is None:
            raise UserError(f"{run} does not say at which size it was trained: compare latents that are encoded.")
        if Manifest.load(shards).kind != "images":
            raise UserError(f"{shards} holds latents: --shards names a folder of images that `ldm pack` made.")
        dataset = ShardDataset(shards, ImageTransform(size, "center", flip=False), self.autoencoder.in_channels)
        super().__init__(run, make_contract(self.autoencoder, size, "float32"), dataset)

    def means(self, samples: list[dict[str, Any]]) -> Tensor:
        return self.autoencoder.encode(torch.stack([sample["images"] for sample in samples])).mean


@dataclass
class Comparison:
    """How two sets of latents stand to each other.

    Attributes:
        differences: fields of their contracts that differ; none, and they may be mixed.
        profiles: of each, over samples that are spread evenly.
        common: how many keys both have.
        compared: how many of these were compared sample by sample; 0 where the shapes differ.
        rms: root mean square difference of their means, in units of their common std of 1; None if none was compared.
        correlation: of their means over all values; None likewise, or where one of them is constant.
    """

    differences: list[str]
    profiles: tuple[Profile, Profile]
    common: int
    compared: int
    rms: float | None
    correlation: float | None

    @property
    def mixable(self) -> bool:
        return not self.differences


def compare(one: Latents, other: Latents, num_samples: int) -> Comparison:
    """Hold two sets of latents against each other.

    Args:
        one: the first.
        other: the second.
        num_samples: how many samples of each are read for the figures; all where there are fewer.
    """
    places = {key: place for place, key in enumerate(other.keys)}
    pairs = [(place, places[key]) for place, key in enumerate(one.keys) if key in places]
    alike = one.contract.shape == other.contract.shape
    chosen = [pairs[i] for i in spread(len(pairs), num_samples)] if alike else []
    rms, correlation = agreement(one, other, chosen)
    return Comparison(
        one.contract.differences(other.contract),
        (profile_of(one, num_samples), profile_of(other, num_samples)),
        len(pairs),
        len(chosen),
        rms,
        correlation,
    )


def profile_of(latents: Latents, num_samples: int) -> Profile:
    profile = LatentProfile(latents.contract.shape[0])
    for batch in latents.batches(spread(len(latents.keys), num_samples)):
        profile.update(batch)
    return profile.finalize()


def agreement(one: Latents, other: Latents, pairs: Sequence[tuple[int, int]]) -> tuple[float | None, float | None]:
    """Root mean square difference and correlation of samples that belong together."""
    if not pairs:
        return None, None
    sides = zip(one.batches([a for a, _ in pairs]), other.batches([b for _, b in pairs]), strict=True)
    values = torch.cat([torch.stack([a.flatten(), b.flatten()]).double() for a, b in sides], dim=1)  # (2, N)
    rms = (values[0] - values[1]).square().mean().sqrt().item()
    correlation = torch.corrcoef(values)[0, 1].item()
    return rms, None if correlation != correlation else correlation


def spread(count: int, num_samples: int) -> list[int]:
    """At most `num_samples` places among `count`, evenly spread."""
    places: list[int] = np.linspace(0, count, min(count, num_samples), endpoint=False).astype(int).tolist()
    return places
