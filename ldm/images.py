"""Images at the file border: to uint8, into grids, into PNG files that carry how they were made, into films."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from ldm.titles import band, too_wide, width_of, wrapped, write

SIDE = 128  # pixels for the titles of rows


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


def grid(
    images: Tensor,
    columns: int,
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    heading: str = "",
    min_side: int = 64,
) -> Image.Image:
    """A picture of images, row by row, with what they are beside them.

    Small images are enlarged by a whole factor to at least `min_side` pixels, so that a person can see them, and to
    twice that where a title needs the room; it is then wrapped, and cut after four lines.

    Args:
        images: (N, C, H, W) in [-1, 1].
        columns: images a row.
        titles: one above each column, or one above each image.
        row_titles: one at the left of each row.
        heading: stands above all.
        min_side: least width of an image.
    """
    columns = min(columns, len(images))
    titles = titles if len(titles) >= len(images) else titles[:columns]
    small = enlarged(images, min_side)
    pixels = enlarged(images, 2 * min_side) if any(too_wide(title, small.shape[3]) for title in titles) else small
    height, width = pixels.shape[2:]
    starts = range(0, len(pixels), columns)
    above = [[wrapped(title, width) for title in titles[start : start + columns]] for start in starts]
    beside = [wrapped(text, SIDE) for text in row_titles]
    head = wrapped(heading, columns * (width + 2))
    left = max(map(width_of, beside), default=0)
    tops = list(accumulate((max(map(band, row), default=0) + height + 2 for row in above), initial=band(head)))
    picture = Image.new("RGB", (left + columns * (width + 2) + 2, tops[-1] + 2), "white")
    write(picture, head, left + 2, 0)
    for number, lines in enumerate(beside):
        write(picture, lines, 2, tops[number + 1] - (height + band(lines)) // 2)
    for place, image in enumerate(pixels):
        row, column = divmod(place, columns)
        x, y = left + 2 + column * (width + 2), tops[row + 1] - height
        picture.paste(to_pil_image(image), (x, y))
        if column < len(above[row]):
            write(picture, above[row][column], x, y - 2 - band(above[row][column]))
    return picture


def enlarged(images: Tensor, min_side: int) -> Tensor:
    """uint8 images whose width is at least `min_side`, by a whole factor."""
    factor = max(1, -(-min_side // images.shape[-1]))
    return to_uint8(images).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def save_film(frames: Sequence[Image.Image], path: Path, seconds: float = 3.0) -> None:
    """Write an animation (GIF or WebP by the file's ending) that runs `seconds` and then rests on the last frame."""
    durations = [max(20, int(1000 * seconds / len(frames)))] * (len(frames) - 1) + [2000]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)
