"""A scene as a picture: antialiased by drawing larger and averaging."""

import numpy as np
from PIL import Image, ImageDraw

from ldm.data.shapes.scenes import COLOURS, OUTLINES, SIDE, Scene

FINER = 4  # how many times larger a scene is drawn


def draw(scene: Scene) -> Image.Image:
    """RGB, 64 x 64."""
    large = Image.new("RGB", (FINER * SIDE, FINER * SIDE), (scene.grey,) * 3)
    pen = ImageDraw.Draw(large)
    for thing in scene.things:
        _outline(pen, thing.shape, thing.x, thing.y, thing.radius, COLOURS[thing.colour])
    return large.reduce(FINER)


def coverage(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """The share of each pixel that an object covers: float32 (64, 64) in [0, 1]; units as in Thing."""
    large = Image.new("L", (FINER * SIDE, FINER * SIDE), 0)
    _outline(ImageDraw.Draw(large), shape, x, y, radius, 255)
    return np.asarray(large.reduce(FINER), dtype=np.float32) / 255


def _outline(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, fill: int | tuple[int, int, int]
) -> None:
    # PIL fills the pixels that a coordinate names, so pixel k's middle is k: half a fine pixel is taken off.
    corners = [(FINER * (x + radius * u) - 0.5, FINER * (y + radius * v) - 0.5) for u, v in OUTLINES[shape]]
    if shape == "circle":
        pen.ellipse([corners[0], corners[2]], fill=fill)
    else:
        pen.polygon(corners, fill=fill)
