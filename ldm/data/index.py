"""Where each member of a shard lies, so that a sample is one read. Rebuilt from the tar whenever it is missing."""

import contextlib
import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ldm.atomic import write_bytes
from ldm.errors import UserError

# Nothing else is ever read from a shard: no pickles, no compressed members.
MAP = "map.png"  # what lies pixel by pixel over an image: classes, or another picture
MEMBERS = ("jpg", "jpeg", "png", "webp", "cls", "txt", "json", "latent.npy", MAP)
TEXT = re.compile(r"text\.[a-z0-9+-]+\.(tokens|mask|pooled)\.npy")  # what a frozen text encoder makes of the captions
IMAGES = ("jpg", "jpeg", "png", "webp")
VERSION = 1


def is_member(extension: str) -> bool:
    """Whether a member of that name is ever read."""
    return extension in MEMBERS or TEXT.fullmatch(extension) is not None


def split_name(name: str) -> tuple[str, str]:
    """`a/b.latent.npy` -> (`a/b`, `latent.npy`): the key ends at the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


@dataclass
class ShardIndex:
    """Keys in stored order, and per extension an int64 array (samples, 2) of offset and size, -1 where absent."""

    keys: list[str] = field(default_factory=list)
    extents: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: dict[str, dict[str, list[int]]]) -> "ShardIndex":
        """From {key: {extension: [offset, size]}}, the form on disk."""
        index = cls(keys=list(samples))
        for row, members in enumerate(samples.values()):
            for extension, extent in members.items():
                if extension not in index.extents:
                    index.extents[extension] = np.full((len(samples), 2), -1, dtype=np.int64)
                index.extents[extension][row] = extent
        return index

    def members(self, row: int) -> dict[str, tuple[int, int]]:
        """{extension: (offset, size)} of one sample."""
        found = {name: extents[row] for name, extents in self.extents.items()}
        return {name: (int(extent[0]), int(extent[1])) for name, extent in found.items() if extent[0] >= 0}

    def __len__(self) -> int:
        return len(self.keys)


def index_path(shard: Path) -> Path:
    return shard.with_name(shard.name + ".idx.json")


def save_index(shard: Path, samples: dict[str, dict[str, list[int]]], num_bytes: int, sha256: str | None) -> None:
    content = {"version": VERSION, "bytes": num_bytes, "sha256": sha256, "samples": samples}
    write_bytes(index_path(shard), json.dumps(content, separators=(",", ":")).encode())


def scan(shard: Path) -> dict[str, dict[str, list[int]]]:
    """{key: {extension: [offset, size]}} from the tar itself.

    Raises:
        UserError: not a tar, or the members of one sample do not stand together.
    """
    samples: dict[str, dict[str, list[int]]] = {}
    last = None
    try:
        with tarfile.open(shard, mode="r:") as tar:
            for member in tar:
                key, extension = split_name(member.name)
                if not member.isreg() or not is_member(extension):
                    continue
                if (key != last and key in samples) or extension in samples.get(key, {}):
                    raise UserError(
                        f"shard {shard}: key {key!r} comes twice; each sample's members must stand together"
                    )
                samples.setdefault(key, {})[extension] = [member.offset_data, member.size]
                last = key
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"shard {shard} is no tar that can be read ({error}): pack or copy it again") from error
    return samples


def load_index(shard: Path, samples: int | None = None, sha256: str | None = None) -> ShardIndex:
    """The index of a shard, from its file where that is fresh, else from the tar (and written for the next time).

    Args:
        samples: how many the manifest says; None if it is not known.
        sha256: what the manifest says; an index that was made for another hash is stale.

    Raises:
        UserError: the tar cannot be read, or does not hold `samples` samples.
    """
    num_bytes = shard.stat().st_size
    index = _load_fresh(index_path(shard), num_bytes, sha256)
    if index is None or samples not in (None, len(index)):
        found = scan(shard)
        index = ShardIndex.of(found)
        with contextlib.suppress(OSError):  # a read-only folder: the index lives in memory only
            save_index(shard, found, num_bytes, sha256)
    if samples not in (None, len(index)):
        raise UserError(
            f"shard {shard} holds {len(index)} samples, but its manifest says {samples}: pack or copy it again"
        )
    return index


def _load_fresh(path: Path, num_bytes: int, sha256: str | None) -> ShardIndex | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fresh = content["version"] == VERSION and content["bytes"] == num_bytes
        if sha256 is not None and content["sha256"] not in (None, sha256):
            fresh = False
        index = ShardIndex.of(content["samples"]) if fresh else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if index is None or not all((extents.sum(axis=1) <= num_bytes).all() for extents in index.extents.values()):
        return None
    return index
