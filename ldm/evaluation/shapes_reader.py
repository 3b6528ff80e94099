"""What is drawn in a picture of the set `shapes`, by classical image analysis: no network, nothing fitted.

Each pixel is taken for a mixture of the background and one colour of the palette. Connected pixels of one colour are an
object; its shape is the one whose drawing of the same area and centre, sharp or blurred, covers it best.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from ldm.data.shapes import COLOURS, PLACES, SHAPES, SIZES, coverage
from ldm.data.shapes.scenes import SIDE

LEAST_AREA = 30.0  # pixels; the smallest object drawn covers about 150
LEAST_FIT = 0.7  # intersection over union with the best template; drawings have over 0.9
MOST_OFF = (
    60.0  # between an object's colour and the palette's, in levels of RGB; two of the palette are 85 or more apart
)
BLURS = (0.0, 1.0)  # pixels; a decoder's pictures are not as sharp as drawings
_UNIT = 12.0  # pixels; the radius at which the area of each shape is measured
_AREAS = {shape: float(coverage(shape, SIDE / 2, SIDE / 2, _UNIT).sum()) / _UNIT**2 for shape in SHAPES}
_BORDER = (SIZES["small"][1] + SIZES["large"][0]) / 2  # radius in pixels that parts small from large
_NAMES = tuple(COLOURS)
_PALETTE = np.array([COLOURS[name] for name in _NAMES], dtype=np.float32)  # (7, 3)
_CROSS = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Found:
    """An object as read; `x`, `y` are its centre of area, in pixels.

    `shape` is None where none fits, `colour` where it is none of the palette's. `fit` is the intersection over union
    with the drawing of the shape that fits best, in [0, 1].
    """

    shape: str | None
    colour: str | None
    size: str
    x: float
    y: float
    place: str
    fit: float


def read(image: Image.Image) -> list[Found]:
    """The objects in a picture of 64 x 64 pixels, the largest first. Specks under 30 pixels are passed over.

    Raises:
        ValueError: another size of picture.
    """
    if image.size != (SIDE, SIDE):
        raise ValueError(f"the picture has {image.width} x {image.height} pixels: shapes are read at {SIDE} x {SIDE}")
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    colours, share = _mixtures(pixels)
    found = [
        _found(_colour(pixels[mask & (share > 0.5)], number), share * mask) for number, mask in _blobs(colours, share)
    ]
    return [thing for _, thing in sorted(found, key=lambda pair: -pair[0])]


def _mixtures(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(palette number that explains each pixel best, its share in [0, 1]): two arrays (64, 64)."""
    background = np.median(pixels.reshape(-1, 3), axis=0)
    away = pixels - background  # (64, 64, 3)
    axes = _PALETTE - background  # (7, 3)
    shares = (away @ axes.T / (axes**2).sum(1)).clip(0, 1)  # (64, 64, 7)
    left = ((away[..., None, :] - shares[..., None] * axes) ** 2).sum(-1)
    best = left.argmin(-1)
    return best, np.take_along_axis(shares, best[..., None], -1)[..., 0]


def _blobs(colours: np.ndarray, share: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(palette number, bool mask (64, 64)) of each object.

    A blurred rim mixes to other colours than its object's, so objects are found by their insides, the runs of pixels
    that are mostly of one colour, and the rest of the foreground is given to the nearest.
    """
    foreground = share > 0.25
    marks = np.zeros(share.shape, dtype=np.int32)
    numbers = []
    for number in range(len(_NAMES)):
        parts, count = ndimage.label((colours == number) & (share > 0.5), _CROSS)
        for part in range(1, count + 1):
            inside = parts == part
            if share[inside].sum() >= LEAST_AREA and ndimage.binary_erosion(inside, np.ones((2, 2))).any():
                numbers.append(number)
                marks[inside] = len(numbers)
    if not numbers:
        return []
    distance, nearest = ndimage.distance_transform_edt(marks == 0, return_indices=True)
    owner = np.where(foreground & (distance <= 2.5), marks[tuple(nearest)], 0)
    return [(number, owner == i) for i, number in enumerate(numbers, 1)]


def _colour(pixels: np.ndarray, number: int) -> str | None:
    """The palette's name for the pixels (N, 3) of an object's inside, if they are near it."""
    off = np.linalg.norm(np.median(pixels, axis=0) - _PALETTE[number])
    return _NAMES[number] if off <= MOST_OFF else None


def _found(colour: str | None, cover: np.ndarray) -> tuple[float, Found]:
    """(area in pixels, the object) from the share of each pixel that it covers."""
    area = float(cover.sum())
    rows, columns = np.indices(cover.shape) + 0.5
    x, y = float((cover * columns).sum() / area), float((cover * rows).sum() / area)
    radii = {shape: (area / _AREAS[shape]) ** 0.5 for shape in SHAPES}
    fits = {shape: _fit(cover, coverage(shape, x, y, radii[shape])) for shape in SHAPES}
    shape = max(fits, key=lambda name: fits[name])
    size = "small" if radii[shape] < _BORDER else "large"
    known = shape if fits[shape] >= LEAST_FIT else None
    return area, Found(known, colour, size, x, y, _place(x, y), fits[shape])


def _fit(cover: np.ndarray, template: np.ndarray) -> float:
    blurred = [ndimage.gaussian_filter(template, sigma) if sigma else template for sigma in BLURS]
    return max(float(np.minimum(cover, one).sum() / np.maximum(cover, one).sum()) for one in blurred)


def _place(x: float, y: float) -> str:
    cell = (min(2, int(3 * x / SIDE)), min(2, int(3 * y / SIDE)))
    return next(name for name, region in PLACES.items() if region == cell)
