"""A packed set as samples: by global position for training, or straight through for encoding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.data.decode import BadImage, open_image, parse_caption, parse_label, to_tensor
from ldm.data.index import IMAGES
from ldm.data.latents import MEMBER, from_npy
from ldm.data.order import Order
from ldm.data.reader import ShardReader
from ldm.data.transform import ImageTransform, draw
from ldm.errors import UserError
from ldm.seeding import seeded_generator

Sample = dict[str, Any]


@dataclass
class Fault:
    """A user's error that happened in a loader worker, on its way to the process that can say it plainly."""

    message: str


class ShardDataset:
    """Map-style by global position: `dataset[p]` is a function of (seed, p, manifest) and of nothing else.

    Args:
        folder: shards and their manifest.
        transform: for images; None for latents.
        channels: 1 or 3.
        num_classes: labels must lie below it; None: what the manifest says.
        order: positions to samples; None: as stored, one epoch.
        augment: crop and mirror as the transform says, by (seed, position); else centre crop, no mirror.
        flip: whether a latent may be the mirror's (an image's mirror is up to `transform`).
    """

    def __init__(
        self,
        folder: str | Path,
        transform: ImageTransform | None = None,
        channels: int = 3,
        num_classes: int | None = None,
        order: Order | None = None,
        augment: bool = False,
        flip: bool = True,
    ) -> None:
        self.reader = ShardReader(folder)
        self.manifest = self.reader.manifest
        if self.manifest.kind == "images" and transform is None:
            raise UserError(f"{folder} holds images: say the size in pixels that they are brought to (size)")
        if num_classes is None and self.manifest.classes is not None:
            num_classes = len(self.manifest.classes)
        self.transform, self.channels, self.num_classes = transform, channels, num_classes
        self.order = order or Order(self.reader.counts, batch_size=1, shuffle=False)
        self.augment, self.flip = augment, flip

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, position: int) -> Sample | Fault:
        """One sample of a batch; a Fault instead of a UserError, which could not leave a worker in one piece."""
        try:
            return self.load(position)
        except UserError as error:
            return Fault(str(error))

    def load(self, position: int) -> Sample:
        """{"images" float32 (C, H, W) | "moments" float32 (2C, h, w), "labels", "captions", "keys", "positions"}.

        Raises:
            UserError: naming key and shard.
        """
        _, index = self.order.locate(position)
        shard, row = self.reader.locate(index)
        key, members = self.reader.read(shard, row)
        where = f"sample {key!r} in shard {self.reader.name(shard)}"
        generator = seeded_generator("augment", self.order.seed, position) if self.augment else None
        sample: Sample = {"keys": key, "positions": position}
        if self.manifest.kind == "latents":
            both = self._latent(members, where)
            mirrored = self.flip and generator is not None and draw(generator)[0]
            sample["moments"] = both[int(mirrored)]
        else:
            sample["images"] = self._image(members, where, generator)
        return sample | self._annotations(members, where)

    def samples(self, shard: int | None = None) -> Iterator[Sample]:
        """`stored` of each sample in stored order, of one shard or of the whole set."""
        for number in range(len(self.manifest.shards)) if shard is None else [shard]:
            for row in range(self.reader.counts[number]):
                yield self.stored(number, row)

    def stored(self, shard: int, row: int) -> Sample:
        """One sample as it is stored, unaugmented.

        Returns:
            {"key": str, "image": float32 (C, size, size) centre crop | "latent": float32 (2, 2C, h, w),
            "labels": int and "captions": str where the set has them, "members": the small members' raw bytes
            (cls, txt, json), to be copied as they are}.

        Raises:
            UserError: naming key and shard.
        """
        key, members = self.reader.read(shard, row)
        where = f"sample {key!r} in shard {self.reader.name(shard)}"
        sample: Sample = {"key": key, **self._annotations(members, where)}
        sample["members"] = {name: members[name] for name in ("cls", "txt", "json") if name in members}
        if self.manifest.kind == "latents":
            return sample | {"latent": self._latent(members, where)}
        return sample | {"image": self._image(members, where, None)}

    def _latent(self, members: dict[str, bytes], where: str) -> Tensor:
        if MEMBER not in members:
            raise UserError(f"{where} has no {MEMBER}: encode the shard again")
        return torch.from_numpy(from_npy(members[MEMBER], where, self.manifest.latents))

    def _image(self, members: dict[str, bytes], where: str, generator: torch.Generator | None) -> Tensor:
        assert self.transform is not None
        try:
            return self.transform(decode_member(members, self.channels), generator)
        except BadImage as error:
            raise UserError(f"{where}: {error}: pack the set again, which leaves such files out") from None

    def _annotations(self, members: dict[str, bytes], where: str) -> Sample:
        found: Sample = {}
        for extension, present in (("cls", self.manifest.has_labels), ("txt", self.manifest.has_captions)):
            if present and extension not in members:
                raise UserError(f"{where} has no .{extension} though its manifest says so: pack the set again")
        if self.manifest.has_labels:
            found["labels"] = parse_label(members["cls"], self.num_classes, where)
        if self.manifest.has_captions:
            found["captions"] = parse_caption(members["txt"], where)
        return found


def decode_member(members: dict[str, bytes], channels: int) -> Tensor:
    """The image of a sample, uint8 (channels, H, W).

    Raises:
        BadImage: there is none, or it cannot be used.
    """
    for extension in IMAGES:
        if extension in members:
            return to_tensor(open_image(members[extension]), channels)
    raise BadImage("no image", f"none of .{', .'.join(IMAGES)}")


def collate(samples: Sequence[Sample | Fault]) -> Sample | Fault:
    """A batch: tensors stacked, numbers as int64 (B,), text as lists; or the first fault of it."""
    batch: Sample = {}
    for sample in samples:
        if isinstance(sample, Fault):
            return sample
        for name, value in sample.items():
            batch.setdefault(name, []).append(value)
    for name, values in batch.items():
        if isinstance(values[0], Tensor):
            batch[name] = torch.stack(values)
        elif isinstance(values[0], int):
            batch[name] = torch.tensor(values, dtype=torch.int64)
    return batch
