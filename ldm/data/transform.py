"""Pixels to a square in [-1, 1]; what is random comes from a generator seeded with (seed, position)."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

Crop = Literal["center", "random"]


def draw(generator: torch.Generator) -> tuple[bool, float, float]:
    """(flip?, vertical, horizontal place of the crop in [0, 1)); always three draws, so that options do not shift."""
    flip, top, left = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    return flip < 0.5, top, left


class ImageTransform:
    """Short side to `size` (bicubic, antialiased), a crop of `size` x `size`, a mirror half of the time.

    Called without a generator it does what validation and encoding want: centre crop, no mirror.
    """

    def __init__(self, size: int, crop: Crop = "random", flip: bool = True) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1 pixel")
        if crop not in ("center", "random"):
            raise ValueError(f"crop is {crop!r}; possible are 'center' and 'random'")
        self.size, self.crop, self.flip = size, crop, flip

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (C, H, W) -> float32 (C, size, size) in [-1, 1]."""
        if min(image.shape[-2:]) != self.size:
            image = tv.resize(image, [self.size], interpolation=InterpolationMode.BICUBIC, antialias=True)
        flip, top, left = draw(generator) if generator is not None else (False, 0.0, 0.0)
        if generator is not None and self.crop == "random":
            height, width = image.shape[-2:]
            i, j = int(top * (height - self.size + 1)), int(left * (width - self.size + 1))
            image = tv.crop(image, i, j, self.size, self.size)
        else:
            image = tv.center_crop(image, [self.size, self.size])
        if flip and self.flip:
            image = tv.horizontal_flip(image)
        return image.to(torch.float32) / 127.5 - 1.0
