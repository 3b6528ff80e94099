"""Images at the file border: to uint8, into grids, into PNG files that carry how they were made, into films."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] -> 0..255, rounded."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def save_png(image: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Write one image (C, H, W) in [-1, 1]; `about` becomes the file's text entries."""
    info = PngInfo()
    for key, value in about.items():
        info.add_text(key, str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(to_uint8(image)).save(path, pnginfo=info)


def grid(images: Tensor, columns: int, titles: Sequence[str] = (), min_side: int = 64) -> Image.Image:
    """A picture of images (N, C, H, W) in [-1, 1], row by row, with a title above each column.

    Small images are enlarged by a whole factor to at least `min_side` pixels, so that a person can see them.
    """
    factor = max(1, -(-min_side // images.shape[-1]))
    pixels = to_uint8(images).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    picture = to_pil_image(make_grid(pixels, nrow=columns, padding=2, pad_value=255)).convert("RGB")
    if not titles:
        return picture
    font = ImageFont.load_default(size=14)
    labelled = Image.new("RGB", (picture.width, picture.height + 20), "white")
    labelled.paste(picture, (0, 20))
    draw = ImageDraw.Draw(labelled)
    cell = factor * images.shape[-1] + 2
    for column, title in enumerate(titles[:columns]):
        while len(title) > 1 and draw.textlength(title, font=font) > cell:
            title = title[:-1]
        draw.text((2 + column * cell, 2), title, fill="black", font=font)
    return labelled


def save_film(frames: Sequence[Image.Image], path: Path, seconds: float = 3.0) -> None:
    """Write an animation (GIF or WebP by the file's ending) that runs `seconds` and then rests on the last frame."""
    durations = [max(20, int(1000 * seconds / len(frames)))] * (len(frames) - 1) + [2000]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)
