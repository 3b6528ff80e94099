"""One candidate to what a shard stores of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ldm.data.annotations import Fields, check_fields
from ldm.data.embedded import png
from ldm.data.sources import UNREADABLE, Item
from ldm.pictures import BadImage, open_image, to_map, upright_size

KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}  # stored byte for byte
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclass
class Prepared:
    """`size` is (width, height) in pixels as stored, `mode` PIL's, `fields` those of the json, `map` a PNG."""

    data: bytes
    extension: str
    size: tuple[int, int]
    mode: str
    caption: str | None
    fields: Fields | None = None
    map: bytes | None = None


def prepare(item: Item, max_pixels: int, min_side: int) -> Prepared | BadImage:
    """Read, decode and check one candidate; a BadImage is returned, to be counted."""
    try:
        return _prepare(item, max_pixels, min_side)
    except BadImage as reason:
        return reason
    except OSError as error:
        return BadImage("file cannot be read", error.strerror or str(error))


def _prepare(item: Item, max_pixels: int, min_side: int) -> Prepared:
    if item.name.lower().endswith(UNREADABLE):
        raise BadImage("format not supported", item.name.rpartition(".")[2])
    data = item.read()
    image = open_image(data, max_pixels)
    if min(image.size) < min_side:
        raise BadImage(f"shorter side under {min_side} pixels", f"{image.size[0]} x {image.size[1]}")
    caption = None
    if item.caption is not None:
        try:
            caption = item.caption().decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise BadImage("caption is not UTF-8") from None
    fields = None if item.annotations is None else _fields(item.annotations)
    values = None if item.map is None else _map(item.map(), upright_size(image), max_pixels)
    extension = KEPT.get(image.format or "")
    if extension is None:
        image, extension = _storable(image), "png"
        data = png(image)
    return Prepared(data, extension, image.size, image.mode, caption, fields, values)


def _fields(annotations: Callable[[], Fields]) -> Fields:
    try:
        fields = annotations()
        check_fields(fields)
    except ValueError as error:
        raise BadImage("json cannot be used", str(error)) from None
    return fields


def _map(data: bytes, size: tuple[int, int], max_pixels: int) -> bytes:
    """The bytes of a map, which must lie over an image of `size` (height, width) pixel by pixel."""
    try:
        image = open_image(data, max_pixels)
        to_map(image)
    except BadImage as error:
        raise BadImage(f"map: {error.reason}", error.detail) from None
    if upright_size(image) != size:
        (height, width), (own_height, own_width) = size, upright_size(image)
        raise BadImage("map of another size", f"{own_width} x {own_height} over an image of {width} x {height}")
    return data if image.format == "PNG" else png(_storable(image))


def _storable(image: Image.Image) -> Image.Image:
    """Upright and in a mode that PNG knows, losing no bit of 16-bit grey."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in PNG_MODES:
        return image
    return image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
