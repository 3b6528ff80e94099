"""A picture file's bytes to pixels, with every odd image either handled or refused by name."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 100_000_000
PIL_MAX_PIXELS = 178_956_970  # beyond this PIL itself refuses
ORIENTATION = 0x0112  # EXIF
QUARTER_TURNS = (5, 6, 7, 8)
MAX_ASPECT = 20.0  # a 1 x 5000 image would become gigabytes when its short side is brought to size

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit here is `max_pixels`


class BadImage(Exception):
    """An image that cannot be used. `reason` is a short category to count by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


def open_image(data: bytes, max_pixels: int = PIL_MAX_PIXELS) -> Image.Image:
    """Fully decode the first frame, as the file has it (no EXIF turn, no conversion).

    The header is checked before a pixel is decoded.

    Raises:
        BadImage: empty, not an image, too many pixels, too long a shape, float or 32-bit pixels, truncated.
    """
    if not data:
        raise BadImage("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage("not an image", f"none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise BadImage(f"more than {max_pixels} pixels", str(error)) from None
    except Exception as error:  # PIL's parsers raise nearly anything on a damaged header
        raise BadImage("truncated or corrupt", str(error)) from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f"more than {max_pixels} pixels", f"{width} x {height}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"longer than {MAX_ASPECT:g} to 1", f"{width} x {height}")
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise BadImage("float or 32-bit pixels", "their range is not known: convert to 8 or 16 bit")
    try:
        image.load()
    except Exception as error:  # as above
        raise BadImage("truncated or corrupt", str(error)) from None
    return image


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """uint8 (channels, H, W): turned as EXIF says, alpha laid on white, 16 bit brought to 8, CMYK converted."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey; PIL's own conversion clips it to white
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) in pixels once it is turned as EXIF says."""
    width, height = image.size
    return (width, height) if image.getexif().get(ORIENTATION) in QUARTER_TURNS else (height, width)


def to_map(image: Image.Image) -> Tensor:
    """uint8 (1, H, W) of a map of classes, each pixel its class, or (3, H, W) of a picture in colour.

    A palette counts as classes: its indices are kept and its colours are not. Grey values and bits stay as they are.

    Raises:
        BadImage: more than 8 bits, which a class map of 256 classes does not need.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        raise BadImage("more than 8 bits", "a map has at most 256 classes: convert it to 8 bits")
    if image.mode in ("1", "L", "P"):
        return torch.from_numpy(np.array(image, dtype=np.uint8))[None]
    return to_tensor(image, channels=1 if image.mode in ("LA", "La", "PA") else 3)
