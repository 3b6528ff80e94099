"""Data sets without a download: `digits` and `photos` come with scikit-learn, `shapes` is drawn (ldm.data.shapes)."""

import io

import numpy as np
from PIL import Image

EMBEDDED = ("digits", "photos", "shapes")
PHOTOS = ("china", "flower")
PHOTO_SPLITS = ("train", "heldout")
TILE = 64  # side of a photo's tile in pixels
STRIDE = 16  # from one training tile to the next
STRIP = 384  # first column of the strip, one tile wide, whose tiles are held out


def digits() -> tuple[list[bytes], list[int], list[str]]:
    """scikit-learn's 1,797 handwritten digits: (8x8 grey PNGs, labels, class names).

    Their 17 grey levels 0..16 become round(level * 255 / 16).
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * 255 / 16).astype(np.uint8)  # (1797, 8, 8)
    return [png(Image.fromarray(image)) for image in pixels], [int(y) for y in data.target], list("0123456789")


def photos(split: str) -> tuple[list[bytes], list[int], list[str], list[str]]:
    """Tiles of scikit-learn's two photographs of 427 x 640: (64x64 PNGs, labels, class names, names of the tiles).

    Held out is a strip of each photograph from top to bottom, in 6 tiles that do not overlap. The training tiles, which
    do, begin at every 16th row and column at which they see none of it: 690 of each photograph.
    """
    from sklearn.datasets import load_sample_image

    images, labels, names = [], [], []
    for label, photo in enumerate(PHOTOS):
        pixels = load_sample_image(f"{photo}.jpg")
        for top, left in places(pixels.shape[0], pixels.shape[1], split):
            images.append(png(Image.fromarray(pixels[top : top + TILE, left : left + TILE])))
            labels.append(label)
            names.append(f"{photo}-{top:03d}-{left:03d}")
    return images, labels, list(PHOTOS), names


def places(height: int, width: int, split: str) -> list[tuple[int, int]]:
    """Top left corners of a photograph's tiles."""
    if split == "heldout":
        return [(top, STRIP) for top in range(0, height - TILE + 1, TILE)]
    apart = [left for left in range(0, width - TILE + 1, STRIDE) if abs(left - STRIP) >= TILE]
    return [(top, left) for top in range(0, height - TILE + 1, STRIDE) for left in apart]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
