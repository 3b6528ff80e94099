"""What is where: the objects of scene i, a pure function of (seed, split, i)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

SIDE = 64  # pixels of a drawing's side
# Corners in units of the radius, y downwards, around the centre of area; the circle is told from its name alone.
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -1.3), (1.12, 0.65), (-1.12, 0.65)],
    "cross": [
        *[(-0.38, -1.05), (0.38, -1.05), (0.38, -0.38), (1.05, -0.38), (1.05, 0.38), (0.38, 0.38)],
        *[(0.38, 1.05), (-0.38, 1.05), (-0.38, 0.38), (-1.05, 0.38), (-1.05, -0.38), (-0.38, -0.38)],
    ],
    "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
}
SHAPES = tuple(OUTLINES)
COLOURS = {
    "red": (215, 30, 35),
    "green": (35, 150, 55),
    "blue": (30, 70, 215),
    "yellow": (245, 215, 25),
    "purple": (140, 45, 175),
    "orange": (250, 130, 20),
    "cyan": (40, 195, 220),
}
SIZES = {"small": (7.5, 8.5), "large": (11.0, 12.0)}  # radius in pixels, from .. to
# Name -> (column, row) of the 3 x 3 regions.
PLACES = {
    "top left": (0, 0),
    "top": (1, 0),
    "top right": (2, 0),
    "left": (0, 1),
    "center": (1, 1),
    "right": (2, 1),
    "bottom left": (0, 2),
    "bottom": (1, 2),
    "bottom right": (2, 2),
}
BANDS = ((0.0, 18.0), (25.0, 39.0), (46.0, 64.0))  # where a centre may lie in each column or row: clear of the borders
# Pairs that no object of the training split has. Each colour and each shape still occurs there.
HELD_OUT = (("red", "square"), ("blue", "triangle"), ("green", "cross"), ("yellow", "circle"), ("purple", "diamond"))
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SPLITS = ("train", "heldout")
EDGE = 1.0  # pixels between an object and the frame
GAP = 2.5  # pixels between the bounding boxes of two objects
CLEAR = 6.0  # by how many pixels the distance along a relation's axis exceeds that along the other

T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """One object. `x`, `y` (its centre of area) and `radius` are in pixels, x to the right and y downwards."""

    shape: str
    colour: str
    size: str
    place: str
    x: float
    y: float
    radius: float

    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels."""
        across, down = zip(*OUTLINES[self.shape], strict=True)
        r = self.radius
        return self.x + r * min(across), self.y + r * min(down), self.x + r * max(across), self.y + r * max(down)


@dataclass(frozen=True)
class Scene:
    """One to three objects, of which no two agree in colour and shape; `grey` is the background's level, 0..255."""

    things: tuple[Thing, ...]
    grey: int


def scene(index: int, split: str = "train", seed: int = 0, objects: int | None = None) -> Scene:
    """Scene `index` of the endless split.

    20 % of the scenes have one object, 70 % two, which are what is hard to learn, and 10 % three. Objects do not
    overlap and lie within the frame, each clearly within its region. The first two lie clearly left of, right of, above
    or below each other.

    Args:
        index: 0 or more.
        split: "train", where no object has a pair of HELD_OUT, or "heldout", where the first object of each scene does.
        seed: of another set of scenes.
        objects: 1, 2 or 3: so many in each scene.

    Raises:
        ValueError: another split or number of objects.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: shapes has {' and '.join(SPLITS)}")
    if objects not in (None, 1, 2, 3):
        raise ValueError(f"objects is {objects}: a scene has 1, 2 or 3")
    rng = random.Random(f"shapes {seed} {split} {index} {objects or ''}")
    count = objects or _pick(rng, [1] * 4 + [2] * 14 + [3] * 2)
    grey = 225 + int(rng.random() * 24)
    pairs = _pairs(rng, split, count)
    while True:
        things = _placed(rng, pairs)
        if _well_placed(things):
            return Scene(tuple(things), grey)


def relation(a: Thing, b: Thing) -> str | None:
    """Which of RELATIONS clearly holds of `a` to `b`, if one does."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(abs(dx) - abs(dy)) < CLEAR:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _pick(rng: random.Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]  # random() alone is the same in every version of Python


def _pairs(rng: random.Random, split: str, count: int) -> list[tuple[str, str]]:
    """(colour, shape) of each object, all different."""
    allowed = [pair for pair in PAIRS if split == "heldout" or pair not in HELD_OUT]
    pairs = [_pick(rng, HELD_OUT if split == "heldout" else allowed)]
    while len(pairs) < count:
        pairs.append(_pick(rng, [pair for pair in allowed if pair not in pairs]))
    return pairs


def _placed(rng: random.Random, pairs: list[tuple[str, str]]) -> list[Thing]:
    places = list(PLACES)
    things = []
    for colour, shape in pairs:
        size = _pick(rng, list(SIZES))
        low, high = SIZES[size]
        radius = low + rng.random() * (high - low)
        place = places.pop(int(rng.random() * len(places)))
        left, top, right, bottom = Thing(shape, colour, size, place, 0.0, 0.0, radius).box()
        column, row = PLACES[place]
        x = _within(rng, BANDS[column], EDGE - left, SIDE - EDGE - right)
        y = _within(rng, BANDS[row], EDGE - top, SIDE - EDGE - bottom)
        things.append(Thing(shape, colour, size, place, x, y, radius))
    return things


def _within(rng: random.Random, band: tuple[float, float], low: float, high: float) -> float:
    low, high = max(band[0], low), min(band[1], high)
    return low + rng.random() * (high - low)


def _well_placed(things: list[Thing]) -> bool:
    apart = all(_apart(a, b) for i, a in enumerate(things) for b in things[:i])
    return apart and (len(things) == 1 or relation(*things[:2]) is not None)


def _apart(a: Thing, b: Thing) -> bool:
    (left, top, right, bottom), other = a.box(), b.box()
    return left > other[2] + GAP or other[0] > right + GAP or top > other[3] + GAP or other[1] > bottom + GAP
