"""Images and folders of them, for the tests of ldm.data."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A noise image, (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def class_folders(root: Path, classes: int = 3, each: int = 5) -> Path:
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(each):
            picture(100 * label + i).save(folder / f"img.v{i}.png")
    return root
