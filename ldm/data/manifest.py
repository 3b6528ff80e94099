"""`manifest.json`: what a folder of shards holds, and the contract that latents were made under."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ldm.atomic import write_bytes
from ldm.errors import UserError

MANIFEST = "manifest.json"
VERSION = 1
PACKING = ".packing"  # the folder that an unfinished pack leaves behind
Kind = Literal["images", "latents"]


@dataclass
class ShardInfo:
    """One tar: its base name, size in bytes, sha256 (hex) and number of samples."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass
class LatentContract:
    """What latents are latents of; training, sampling and export refuse on a mismatch.

    Attributes:
        autoencoder: hash (hex) of the weights that encoded.
        transform: what was done to the images before: {"size": int, "crop": "center", "channels": int}.
        shape: [C, h, w] of one latent; a member holds (2, 2C, h, w) = [image, mirror] x cat(mean, logvar).
        dtype: "float16" or "float32", as stored.
        mean: per channel, length C; the latents' mean before normalising.
        std: per channel, length C.
        num_samples: how many samples mean and std come from.
        autoencoder_class: name of its class, for people to read; None in older sets. It tells no latents apart.
    """

    autoencoder: str
    transform: dict[str, Any]
    shape: list[int]
    dtype: str
    mean: list[float]
    std: list[float]
    num_samples: int
    autoencoder_class: str | None = None

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """From plain data; a KeyError or TypeError where that is no contract."""
        made: Self = _build(cls, content)
        return made

    def differences(self, other: "LatentContract") -> list[str]:
        """Names of the fields that keep latents of two contracts out of one set; none where they may be mixed."""
        names = (f.name for f in dataclasses.fields(self) if f.name != "autoencoder_class")
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def check(self, autoencoder: str, folder: str) -> None:
        """Raises UserError, naming both, where the latents in `folder` are of another autoencoder than this hash."""
        if self.autoencoder != autoencoder:
            raise UserError(
                f"the latents in {folder} were made by autoencoder {self.autoencoder[:12]}, and the model is given "
                f"autoencoder {autoencoder[:12]}: run `ldm encode` with the model's autoencoder, or point the model "
                "at the other one"
            )


@dataclass
class TextContract:
    """What the embeddings of captions that are kept with a set are embeddings of; training refuses on a mismatch.

    Attributes:
        name: the text encoder's.
        fingerprint: hash (hex) of its files and settings.
        token_width: D of the tokens.
        context_length: L, to which what is stored is filled up.
        pooled_width: P of the pooled vector, None where there is none.
        dtype: "float16" or "float32", as stored.
    """

    name: str
    fingerprint: str
    token_width: int
    context_length: int
    pooled_width: int | None
    dtype: str

    def entries(self) -> set[str]:
        """Names of the entries that they become."""
        parts = ("tokens", "mask") if self.pooled_width is None else ("tokens", "mask", "pooled")
        return {f"text.{self.name}.{part}" for part in parts}


@dataclass
class Manifest:
    """The contents of a folder of shards; written last, so that its presence means a complete set.

    Attributes:
        kind: "images" or "latents".
        shards: in stored order.
        classes: class names, place = label; None without labels.
        formats: images per file kind, e.g. {"jpg": 900, "png": 100}.
        modes: images per PIL mode, e.g. {"RGB": 990, "L": 10}.
        sizes: {"min_width", "max_width", "min_height", "max_height"} in pixels, as stored.
        latents: the contract of a latent set; None for images.
        fields: entries of a batch that every sample has besides: of its json, its map, a latent's sizes.
        texts: the contracts of embeddings of captions that are kept with the samples.
        stamped: whether each shard says the contract of its latents at its head; False of images and of older sets.
    """

    kind: Kind
    shards: list[ShardInfo]
    classes: list[str] | None = None
    has_labels: bool = False
    has_captions: bool = False
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    latents: LatentContract | None = None
    fields: list[str] = field(default_factory=list)
    texts: list[TextContract] = field(default_factory=list)
    stamped: bool = False
    version: int = VERSION

    @property
    def num_samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def digest(self) -> str:
        """sha256 (hex) of what decides which sample stands where: the kind, and each shard's name, count, hash."""
        content = [self.kind, [[shard.name, shard.samples, shard.sha256] for shard in self.shards]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        content = {"num_samples": self.num_samples, **asdict(self)}
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        write_bytes(Path(folder) / MANIFEST, (text + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read and check a manifest.

        Raises:
            UserError: no such folder, no manifest (an unfinished set is called so), or one that cannot be used.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(_why_missing(folder))
        try:
            return cls._parse(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is no manifest that this version reads ({error}): pack the set again") from error

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> Self:
        if content["version"] != VERSION:
            raise ValueError(f"format version {content['version']}, expected {VERSION}")
        if content["kind"] not in get_args(Kind):
            raise ValueError(f"kind {content['kind']!r}")
        content = {"fields": [], "texts": [], "stamped": False, **content}  # which older sets lack
        values = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        values["shards"] = [_build(ShardInfo, shard) for shard in content["shards"]]
        for shard in values["shards"]:
            if shard.name in ("", ".", "..") or Path(shard.name).name != shard.name:
                raise ValueError(f"shard name {shard.name!r} is not a plain file name")
            if min(int(shard.samples), int(shard.bytes)) < 0:
                raise ValueError(f"shard {shard.name} has a negative count")
        if content["latents"] is not None:
            values["latents"] = LatentContract.parse(content["latents"])
        values["texts"] = [_build(TextContract, text) for text in content["texts"]]
        if (content["kind"] == "latents") != (values["latents"] is not None):
            raise ValueError("the latent contract must stand in a latent set, and only there")
        manifest = cls(**values)
        if content["num_samples"] != manifest.num_samples:
            raise ValueError(f"num_samples {content['num_samples']}, but its shards hold {manifest.num_samples}")
        return manifest


def _build(cls: Any, content: Mapping[str, Any]) -> Any:
    """A dataclass from plain data, in which only what has a default may be missing."""
    there = [f for f in dataclasses.fields(cls) if f.name in content or f.default is dataclasses.MISSING]
    return cls(**{f.name: content[f.name] for f in there})


def _why_missing(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder: make a set with `ldm pack SOURCE {folder}`"
    if (folder / PACKING).exists() or any(folder.glob("*.part")):
        return f"{folder} is incomplete (its packing was interrupted): run the same `ldm pack` again"
    parts = [name for name in ("train", "val") if (folder / name / MANIFEST).is_file()]
    if parts:
        return (
            f"{folder} holds no {MANIFEST}, but its sub-folders do: use {' or '.join(str(folder / p) for p in parts)}"
        )
    return f"{folder} holds no {MANIFEST}: make a set with `ldm pack SOURCE OUT`, or give the folder of one"
