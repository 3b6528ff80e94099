"""Pixels to a square in [-1, 1]; what is random comes from a generator seeded with (seed, position)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

Crop = Literal["center", "random"]
MapResampling = Literal["nearest", "bilinear"]


def draw(generator: torch.Generator) -> tuple[bool, float, float]:
    """(flip?, vertical, horizontal place of the crop in [0, 1)); always three draws, so that options do not shift."""
    flip, top, left = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    return flip < 0.5, top, left


def resized(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of an image whose short side is brought to `size`."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


@dataclass(frozen=True)
class View:
    """Which square of an image is seen, and which way round.

    Attributes:
        original: (height, width) of the image as stored, upright.
        resized: (height, width) of it with its short side brought to size.
        top: first row of the crop in the resized image.
        left: first column of it there.
        mirrored: whether the crop is then mirrored.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    mirrored: bool

    def entries(self, size: int) -> dict[str, Any]:
        """`original_size` [height, width] and `crop` [top, left], in pixels (SDXL, arXiv:2307.01952, section 2.2).

        The crop's place is that in the resized image, before it is cropped; of a mirrored image in the mirror of that.
        """
        left = self.resized[1] - size - self.left if self.mirrored else self.left
        return {"original_size": list(self.original), "crop": [self.top, left]}


class ImageTransform:
    """Short side to `size` (bicubic, antialiased), a crop of `size` x `size`, a mirror half of the time.

    Called without a generator it does what validation and encoding want: centre crop, no mirror.

    Args:
        map_resampling: how a map beside an image is brought to size: `nearest` keeps classes, `bilinear` (antialiased)
            is for pictures.
    """

    def __init__(
        self, size: int, crop: Crop = "random", flip: bool = True, map_resampling: MapResampling = "nearest"
    ) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1 pixel")
        if crop not in ("center", "random"):
            raise ValueError(f"crop is {crop!r}; possible are 'center' and 'random'")
        if map_resampling not in ("nearest", "bilinear"):
            raise ValueError(f"map_resampling is {map_resampling!r}; possible are 'nearest' and 'bilinear'")
        self.size, self.crop, self.flip, self.map_resampling = size, crop, flip, map_resampling

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (C, H, W) -> float32 (C, size, size) in [-1, 1]."""
        return self.look(image, self.view(image, generator))

    def view(self, image: Tensor, generator: torch.Generator | None = None) -> View:
        """The square of an image (C, H, W) that is seen."""
        original = (image.shape[-2], image.shape[-1])
        height, width = resized(*original, self.size)
        flip, top, left = draw(generator) if generator is not None else (False, 0.0, 0.0)
        if generator is not None and self.crop == "random":
            place = int(top * (height - self.size + 1)), int(left * (width - self.size + 1))
        else:
            place = round((height - self.size) / 2), round((width - self.size) / 2)
        return View(original, (height, width), *place, flip and self.flip)

    def look(self, image: Tensor, view: View) -> Tensor:
        """uint8 (C, H, W) -> float32 (C, size, size) in [-1, 1]."""
        if image.shape[-2:] != view.resized:
            image = tv.resize(image, list(view.resized), interpolation=InterpolationMode.BICUBIC, antialias=True)
        return self._cut(image, view).to(torch.float32) / 127.5 - 1.0

    def look_at_map(self, values: Tensor, view: View) -> Tensor:
        """uint8 (C, H, W) of a map beside an image, of any resolution -> uint8 (C, size, size)."""
        if values.shape[-2:] != view.resized:
            mode = InterpolationMode.NEAREST_EXACT if self.map_resampling == "nearest" else InterpolationMode.BILINEAR
            values = tv.resize(values, list(view.resized), interpolation=mode, antialias=True)
        return self._cut(values, view)

    def _cut(self, pixels: Tensor, view: View) -> Tensor:
        pixels = tv.crop(pixels, view.top, view.left, self.size, self.size)
        return tv.horizontal_flip(pixels) if view.mirrored else pixels
