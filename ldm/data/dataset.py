"""A packed set as samples: by global position for training, or straight through for encoding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.data import annotations
from ldm.data.decode import parse_caption, parse_label
from ldm.data.embedded import png
from ldm.data.index import IMAGES, MAP
from ldm.data.latents import MEMBER, from_npy
from ldm.data.order import Order
from ldm.data.reader import ShardReader
from ldm.data.text_cache import from_members
from ldm.data.transform import ImageTransform, draw, resized
from ldm.errors import UserError
from ldm.pictures import BadImage, open_image, to_map, to_tensor
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
        """{"images" float32 (C, H, W) | "moments" float32 (2C, h, w), "maps" uint8 (C', H, W), "labels", "captions",
        "original_size", "crop", the fields of its json, what text encoders make of the caption (as
        `text_cache.from_members`), "keys", "shards", "positions"}.

        Raises:
            UserError: naming key and shard.
        """
        _, index = self.order.locate(position)
        shard, row = self.reader.locate(index)
        key, members = self.reader.read(shard, row)
        where = f"sample {key!r} in shard {self.reader.name(shard)}"
        generator = seeded_generator("augment", self.order.seed, position) if self.augment else None
        several = self.augment and "json" in members
        voice = seeded_generator("caption", self.order.seed, position) if several else None
        sample: Sample = {"keys": key, "shards": self.reader.name(shard), "positions": position}
        said = self._annotations(members, where, voice)
        if self.manifest.kind == "latents":
            mirrored = self.flip and generator is not None and draw(generator)[0]
            return said | sample | self._encoded(members, where, said, mirrored)
        return said | sample | self._seen(members, where, generator)

    def samples(self, shard: int | None = None) -> Iterator[Sample]:
        """`stored` of each sample in stored order, of one shard or of the whole set."""
        for number in range(len(self.manifest.shards)) if shard is None else [shard]:
            for row in range(self.reader.counts[number]):
                yield self.stored(number, row)

    def stored(self, shard: int, row: int) -> Sample:
        """One sample as it is stored, unaugmented.

        Returns:
            {"key": str, "image": float32 (C, size, size) centre crop | "latent": float32 (2, 2C, h, w),
            "labels": int, "captions": str and "maps": uint8 (C', size, size) where the set has them, "members": what
            a shard of its latents holds besides: cls and txt as they are, json with the sizes, the map at that size}.

        Raises:
            UserError: naming key and shard.
        """
        key, members = self.reader.read(shard, row)
        where = f"sample {key!r} in shard {self.reader.name(shard)}"
        sample: Sample = self._annotations(members, where, None)
        sample["key"] = key
        kept = {name: members[name] for name in ("cls", "txt", "json", MAP) if name in members}
        if self.manifest.kind == "latents":
            own = {"maps": self._map(members, where)} if MAP in members else {}
            return sample | own | {"latent": self._latent(members, where), "members": kept}
        found = self._seen(members, where, None)
        sizes = {name: found[name] for name in annotations.SIZES}
        kept["json"] = annotations.to_json(read_fields(members, where) | sizes).encode()
        if MAP in kept:
            kept[MAP] = map_png(found["maps"])
        return sample | {"image": found.pop("images"), "members": kept} | found

    def _seen(self, members: dict[str, bytes], where: str, generator: torch.Generator | None) -> Sample:
        assert self.transform is not None
        try:
            return seen(members, self.transform, self.channels, generator)
        except BadImage as error:
            raise UserError(f"{where}: {error}: pack the set again, which leaves such files out") from None

    def _encoded(self, members: dict[str, bytes], where: str, said: Sample, mirrored: bool) -> Sample:
        """Latent, crop and map of a sample of a latent set, or of its mirror."""
        found: Sample = {"moments": self._latent(members, where)[int(mirrored)]}
        if MAP in members:
            values = self._map(members, where)
            found["maps"] = values.flip(-1) if mirrored else values
        if mirrored and all(name in said for name in annotations.SIZES):
            assert self.manifest.latents is not None
            size = self.manifest.latents.transform["size"]
            height, width = said["original_size"]
            top, left = said["crop"]
            found["crop"] = [top, resized(height, width, size)[1] - size - left]
        return found

    def _map(self, members: dict[str, bytes], where: str) -> Tensor:
        try:
            return read_map(members)
        except BadImage as error:
            raise UserError(f"{where}: {error}: encode the shard again") from None

    def _latent(self, members: dict[str, bytes], where: str) -> Tensor:
        if MEMBER not in members:
            raise UserError(f"{where} has no {MEMBER}: encode the shard again")
        return torch.from_numpy(from_npy(members[MEMBER], where, self.manifest.latents))

    def _annotations(self, members: dict[str, bytes], where: str, voice: torch.Generator | None) -> Sample:
        """What is said of a sample: the fields of its json, its label and a caption, drawn if a generator is given, and
        what text encoders have made of that caption."""
        for extension, present in (("cls", self.manifest.has_labels), ("txt", self.manifest.has_captions)):
            if present and extension not in members:
                raise UserError(f"{where} has no .{extension} though its manifest says so: pack the set again")
        fields = read_fields(members, where)
        found = annotations.entries(fields)
        if self.manifest.has_labels:
            found["labels"] = parse_label(members["cls"], self.num_classes, where)
        captions, place = annotations.captions_in(fields), annotations.drawn_place(fields, voice)
        if captions:
            found["captions"] = captions[place]
        elif self.manifest.has_captions:
            found["captions"] = parse_caption(members["txt"], where)
        return found | from_members(members, self.manifest.texts, place, where)


def read_fields(members: dict[str, bytes], where: str) -> annotations.Fields:
    """The fields of a sample's json, none where it has no such member."""
    try:
        return annotations.parse_fields(members["json"]) if "json" in members else {}
    except ValueError as error:
        raise UserError(f"{where}: its json cannot be used, {error}: pack the set again") from None


def seen(
    members: Mapping[str, bytes], transform: ImageTransform, channels: int, generator: torch.Generator | None
) -> Sample:
    """The image of a sample as a transform sees it, with its sizes and, where there is one, its map.

    Raises:
        BadImage: image or map cannot be used.
    """
    pixels = decode_member(members, channels)
    view = transform.view(pixels, generator)
    found: Sample = {"images": transform.look(pixels, view), **view.entries(transform.size)}
    if MAP in members:
        found["maps"] = transform.look_at_map(read_map(members), view)
    return found


def decode_member(members: Mapping[str, bytes], channels: int) -> Tensor:
    """The image of a sample, uint8 (channels, H, W).

    Raises:
        BadImage: there is none, or it cannot be used.
    """
    for extension in IMAGES:
        if extension in members:
            return to_tensor(open_image(members[extension]), channels)
    raise BadImage("no image", f"none of .{', .'.join(IMAGES)}")


def read_map(members: Mapping[str, bytes]) -> Tensor:
    """The map beside an image, uint8 (1 or 3, H, W).

    Raises:
        BadImage: it cannot be used.
    """
    try:
        return to_map(open_image(members[MAP]))
    except BadImage as error:
        raise BadImage(f"map: {error.reason}", error.detail) from None


def map_png(values: Tensor) -> bytes:
    """A map, uint8 (1 or 3, H, W), as a PNG of its values."""
    return png(Image.fromarray((values[0] if len(values) == 1 else values.permute(1, 2, 0)).numpy()))


def collate(samples: Sequence[Sample | Fault]) -> Sample | Fault:
    """A batch: tensors stacked, numbers as (B,) and (B, n), text as lists; or the first fault of it.

    An entry that some of the samples lack is a list with None in their places.
    """
    there: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Fault):
            return sample
        there.append(sample)
    batch: Sample = {}
    for name in dict.fromkeys(name for sample in there for name in sample):
        values = [sample.get(name) for sample in there]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if len(tensors) < len(values):
            batch[name] = annotations.collated(values)
            continue
        shapes = [tuple(value.shape) for value in tensors]
        if odd := next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None):
            one, other = (f"of sample {there[i]['keys']!r} are {shapes[i]}" for i in (0, odd))
            return Fault(f"{name} {one} and those {other}: make them alike and pack the set again")
        batch[name] = torch.stack(tensors)
    return batch
