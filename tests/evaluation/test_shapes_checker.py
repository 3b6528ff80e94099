import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from ldm.data.shapes import SPLITS, Scene, Thing, captions, draw, parse, scene
from ldm.data.shapes.scenes import COLOURS
from ldm.evaluation.shapes import judge, judge_found
from ldm.evaluation.shapes_reader import Found, read


def known(thing: Thing | Found) -> tuple[str, str, str, str]:
    return str(thing.shape), str(thing.colour), thing.size, thing.place


def spoilt(image: Image.Image, i: int) -> Image.Image:
    """As drawn, or blurred and noisy as a decoder's picture, or through JPEG."""
    if i % 3 == 0:
        return image
    if i % 3 == 1:
        levels = gaussian_filter(np.asarray(image, dtype=np.float32), (0.7, 0.7, 0))
        levels += np.random.default_rng(i).normal(0, 0.03 * 255, levels.shape)
        return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


def test_at_least_99_percent_of_fresh_drawings_are_read_and_judged_right() -> None:
    count, exact, right = 240, 0, 0
    for i in range(count):
        drawn = scene(20_000_000 + i, SPLITS[i % 2])
        found = read(spoilt(draw(drawn), i))
        exact += sorted(map(known, found)) == sorted(map(known, drawn.things))
        verdicts = [judge_found(parse(caption), found) for caption in captions(drawn)]
        right += all(verdict.right and all(verdict.aspects.values()) for verdict in verdicts)
    assert exact >= 0.99 * count
    assert right >= 0.99 * count


RED = Thing("circle", "red", "small", "left", 14.0, 32.0, 7.0)
BLUE = Thing("square", "blue", "large", "right", 46.0, 34.0, 10.0)
BOTH = draw(Scene((RED, BLUE), 240))


def test_centres_are_read_to_a_fifth_of_a_pixel() -> None:
    blue, red = read(BOTH)
    assert (blue.x, blue.y) == pytest.approx((BLUE.x, BLUE.y), abs=0.2)
    assert (red.x, red.y) == pytest.approx((RED.x, RED.y), abs=0.2)


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("a red circle left of a blue square", set()),
        ("a large blue square on the right and a small red circle on the left", set()),
        ("a blue square and a red circle", set()),
        ("a red circle right of a blue square", {"relation"}),
        ("a red circle above a blue square", {"relation"}),
        ("a red square left of a blue circle", {"object"}),
        ("a red circle left of a green square", {"colour", "object"}),
        ("a red circle left of a blue diamond", {"shape", "object"}),
        ("a red circle on the left", {"count"}),
        ("a red circle at the top left and a blue square", {"place"}),
        ("a large red circle left of a blue square", {"size"}),
        ("a red circle, a blue square and a cyan cross", {"count", "colour", "shape", "object"}),
    ],
)
def test_each_aspect_is_judged_by_itself(caption: str, wrong: set[str]) -> None:
    verdict = judge(caption, BOTH)
    assert {name for name, right in verdict.aspects.items() if not right} - {"relation"} == wrong - {"relation"}
    assert verdict.aspects.get("relation", True) == (not wrong & {"relation"})
    assert verdict.right == (wrong <= {"size"})


def test_touching_objects_of_two_colours_are_two() -> None:
    beside = replace(BLUE, x=RED.x + 7 + 9)
    assert sorted(map(known, read(draw(Scene((RED, beside), 240))))) == [
        ("circle", "red", "small", "left"),
        ("square", "blue", "large", "center"),
    ]


def test_what_is_nothing_of_the_set_is_not_taken_for_it() -> None:
    assert read(Image.new("RGB", (64, 64), "white")) == []
    assert not judge("a red circle", Image.new("RGB", (64, 64), "white")).right
    pixels = np.full((64, 64, 3), 240, dtype=np.uint8)
    pixels[10:14, 5:60] = COLOURS["red"]  # a bar
    pixels[30:50, 30:50] = (90, 60, 20)  # a brown square
    colours = {thing.colour: thing.shape for thing in read(Image.fromarray(pixels))}
    assert colours == {"red": None, None: "square"}
    with pytest.raises(ValueError, match="64 x 64"):
        read(Image.new("RGB", (32, 64)))
