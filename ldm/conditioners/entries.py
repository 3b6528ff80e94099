"""Entries of a batch as tensors, and a user's words and files as such entries."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ldm.conditioners.base import Embedder
from ldm.errors import UserError
from ldm.pictures import BadImage, open_image, to_map, to_tensor


def tensor_of(embedder: Embedder, batch: Mapping[str, Any], key: str, drop: Tensor) -> Tensor | None:
    """An entry, or what stands in for it, on the device of `drop`; None where there is none, as every row is dropped.

    Raises:
        UserError: it holds something else than numbers.
    """
    values = embedder.entry(batch, key)
    if isinstance(values, Tensor):
        return values.to(drop.device)
    if values is None or bool(drop.all()):
        return None
    raise UserError(
        f"The embedder {type(embedder).__name__} reads numbers in {key!r}, equally many of each sample, and finds "
        f"{str(values[0])[:40]!r}: pack the set again with such numbers, or take the embedder out of the conditioner."
    )


def check_below(embedder: Embedder, key: str, values: Tensor, heard: Tensor, num_values: int) -> None:
    """Raise a UserError where a value that is heard is none of 0 to `num_values` - 1.

    Only on the CPU: asking a GPU would wait for it, and there the look-up itself stops the run.
    """
    if values.device.type != "cpu":
        return
    wrong = values[heard & ((values < 0) | (values >= num_values))]
    if len(wrong):
        raise UserError(
            f"The embedder {type(embedder).__name__} knows the values 0 to {num_values - 1} of {key!r}, and finds "
            f"{int(wrong[0])}: raise its number of values, or pack the set again."
        )


def parse_numbers(key: str, text: str, count: int) -> list[float]:
    """`count` numbers of a user's text, such as [512, 768], 512,768 or 512x768; one number stands for all."""
    words = [word for word in re.split(r"[\s,x\[\]()]+", text.strip()) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, count) or not all(abs(number) < float("inf") for number in numbers):
        wanted = "a number" if count == 1 else f"{count} numbers, such as {','.join(['512'] * count)}"
        raise UserError(f"{key} is {wanted}, and {text!r} is not that.")
    return [int(number) if number.is_integer() else number for number in numbers * (count // len(numbers))]


def read_picture(file: str, side: int, channels: int = 3) -> Tensor:
    """A picture file as float32 (channels, side, side) in [-1, 1]: short side to `side`, the centre of it."""
    try:
        pixels = to_tensor(open_image(read_bytes(file)), channels)
    except BadImage as error:
        raise UserError(f"{file}: {error}: give another picture.") from None
    return square(pixels, side, InterpolationMode.BICUBIC).float() / 127.5 - 1


def read_map(file: str, side: int, resampling: InterpolationMode = InterpolationMode.NEAREST_EXACT) -> Tensor:
    """A map's file as uint8 (1 or 3, side, side), see `read_picture`."""
    try:
        values = to_map(open_image(read_bytes(file)))
    except BadImage as error:
        raise UserError(f"{file}: {error}: give another map.") from None
    return square(values, side, resampling)


def read_bytes(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"The picture {file} cannot be read ({error.strerror}): give the path of a file.") from None


def square(pixels: Tensor, side: int, resampling: InterpolationMode) -> Tensor:
    if min(pixels.shape[1:]) != side:
        pixels = tv.resize(pixels, [side], interpolation=resampling, antialias=True)
    return tv.center_crop(pixels, [side, side])


def on_grid(drop: Tensor, values: Tensor) -> Tensor:
    """Images (B, C, H, W), zeros in the rows that are dropped."""
    return torch.where(drop[:, None, None, None], torch.zeros((), dtype=values.dtype, device=values.device), values)
