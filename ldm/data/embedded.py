"""Data sets that need no download: `digits` comes with a dependency, `shapes` is drawn (ldm.data.shapes)."""

import io

import numpy as np
from PIL import Image

EMBEDDED = ("digits", "shapes")


def digits() -> tuple[list[bytes], list[int], list[str]]:
    """scikit-learn's 1,797 handwritten digits: (8x8 grey PNGs, labels, class names).

    Their 17 grey levels 0..16 become round(level * 255 / 16).
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * 255 / 16).astype(np.uint8)  # (1797, 8, 8)
    return [png(Image.fromarray(image)) for image in pixels], [int(y) for y in data.target], list("0123456789")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
