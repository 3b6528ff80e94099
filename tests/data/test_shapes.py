import json
import math
from pathlib import Path

import numpy as np
import pytest

from ldm.data import Manifest, ShardReader, pack
from ldm.data.shapes import (
    COLOURS,
    HELD_OUT,
    PLACES,
    SHAPES,
    SIZES,
    SPLITS,
    Demand,
    Wanted,
    captions,
    coverage,
    draw,
    parse,
    scene,
    weighted_captions,
)
from ldm.data.shapes.scenes import GAP, SIDE, relation
from ldm.errors import UserError

COUNT = 600


def pairs(split: str) -> list[list[tuple[str, str]]]:
    return [[(thing.colour, thing.shape) for thing in scene(i, split).things] for i in range(COUNT)]


def test_held_out_pairs_never_occur_in_training_and_begin_every_held_out_scene() -> None:
    seen = {pair for found in pairs("train") for pair in found}
    assert not seen & set(HELD_OUT)
    assert len(seen) == len(COLOURS) * len(SHAPES) - len(HELD_OUT)
    assert {colour for colour, _ in seen} == set(COLOURS)
    assert {shape for _, shape in seen} == set(SHAPES)
    assert {found[0] for found in pairs("heldout")} == set(HELD_OUT)


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    assert scene(7) == scene(7)
    others = [scene(8), scene(7, "heldout"), scene(7, seed=1), scene(7, objects=3)]
    assert scene(7) not in others
    # The same on every machine and version: a packed set can be told from its seed.
    assert captions(scene(0))[0] == "a blue square below a purple triangle"
    assert (scene(0).grey, scene(0).things[0].x) == (231, pytest.approx(36.26942350343849))
    assert np.asarray(draw(scene(0)))[0, 0].tolist() == [231] * 3


@pytest.mark.parametrize("split", SPLITS)
def test_objects_lie_apart_within_the_frame_and_clearly_in_their_regions(split: str) -> None:
    for i in range(COUNT):
        things = scene(i, split).things
        assert len({(thing.colour, thing.shape) for thing in things}) == len(things)
        for thing in things:
            left, top, right, bottom = thing.box()
            assert min(left, top) >= 1
            assert max(right, bottom) <= SIDE - 1
            column, row = PLACES[thing.place]
            for at, cell in ((thing.x, column), (thing.y, row)):
                assert all(abs(at - border * SIDE / 3) >= 3 for border in (1, 2))
                assert cell * SIDE / 3 < at < (cell + 1) * SIDE / 3
            assert SIZES[thing.size][0] <= thing.radius <= SIZES[thing.size][1]
        boxes = [thing.box() for thing in things]
        for a, b in ((a, b) for k, a in enumerate(boxes) for b in boxes[:k]):
            assert max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) > GAP
        assert len(things) == 1 or relation(*things[:2])


def test_most_scenes_have_two_objects_and_fewest_have_three() -> None:
    counts = np.bincount([len(scene(i).things) for i in range(2000)], minlength=4)[1:] / 2000
    np.testing.assert_allclose(counts, [0.2, 0.7, 0.1], atol=0.04)
    assert {len(scene(i, objects=2).things) for i in range(50)} == {2}


def test_every_caption_parses_to_what_is_in_the_scene() -> None:
    for i in range(COUNT):
        drawn = scene(i, SPLITS[i % 2])
        said = weighted_captions(drawn)
        assert math.isclose(sum(weight for _, weight in said), 1)
        assert len({text for text, _ in said}) == len(said)
        for text, _ in said:
            demand = parse(text)
            assert len(demand.objects) == len(drawn.things)
            matched = [
                next(t for t in drawn.things if (t.colour, t.shape) == (want.colour, want.shape))
                for want in demand.objects
            ]
            for want, thing in zip(demand.objects, matched, strict=True):
                assert want.size in (None, thing.size)
                assert want.place in (None, thing.place)
            for first, name, second in demand.relations:
                assert relation(matched[first], matched[second]) == name


def test_a_users_prompts_parse() -> None:
    red, blue = Wanted("circle", "red"), Wanted("square", "blue")
    assert parse("A red circle  to the left of a blue square.") == Demand((red, blue), ((0, "left of", 1),))
    assert parse("red circle and blue square") == Demand((red, blue))
    assert parse("bottom left: an orange cross") == Demand((Wanted("cross", "orange", None, "bottom left"),))
    placed = parse("a large red circle in the middle, and a cyan cross under a blue square")
    assert placed.objects == (Wanted("circle", "red", "large", "center"), Wanted("cross", "cyan"), blue)
    assert placed.relations == ((1, "below", 2),)
    with pytest.raises(UserError, match="'a pink dog' is not understood"):
        parse("a red circle and a pink dog")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawing_is_centred_on_its_centre_of_area(shape: str) -> None:
    cover = coverage(shape, 30.3, 25.8, 9.7)
    rows, columns = np.indices(cover.shape) + 0.5
    assert (cover * columns).sum() / cover.sum() == pytest.approx(30.3, abs=0.2)
    assert (cover * rows).sum() / cover.sum() == pytest.approx(25.8, abs=0.2)
    assert 0 <= cover.min() < cover.max() <= 1


def test_packed_samples_hold_the_picture_its_captions_and_its_objects(tmp_path: Path) -> None:
    report = pack("shapes", str(tmp_path / "set"), val_fraction=0.25, num_images=40)
    assert {Path(folder).name: found.num_samples for folder, found in report.sets.items()} == {"train": 30, "val": 10}
    manifest = Manifest.load(tmp_path / "set" / "train")
    assert manifest.has_captions
    assert manifest.classes is None
    reader = ShardReader(tmp_path / "set" / "train")
    key, members = reader.read(0, 0)
    drawn = scene(int(key.split("_")[1]))
    about = json.loads(members["json"])
    assert about["captions"] == captions(drawn)
    assert members["txt"].decode() == captions(drawn)[0]
    assert about["caption_weights"] == [weight for _, weight in weighted_captions(drawn)]
    assert about["objects"] == [[t.shape, t.colour, t.size, t.place] for t in drawn.things]


def test_the_held_out_split_is_packed_by_name_and_others_are_refused(tmp_path: Path) -> None:
    pack("shapes", str(tmp_path / "set"), split="heldout", num_images=5)
    reader = ShardReader(tmp_path / "set")
    objects = [json.loads(reader.read(0, row)[1]["json"])["objects"] for row in range(5)]
    assert all((first[1], first[0]) in HELD_OUT for first, *_ in objects)
    with pytest.raises(UserError, match="'train' and 'heldout'"):
        pack("shapes", str(tmp_path / "other"), split="test")
    with pytest.raises(UserError, match="num_images is 5, but digits"):
        pack("digits", str(tmp_path / "other"), num_images=5)
    with pytest.raises(UserError, match="num_images is 0"):
        pack("shapes", str(tmp_path / "other"), num_images=0)


@pytest.mark.parametrize(("asked", "message"), [({"split": "val"}, "train and heldout"), ({"objects": 4}, "1, 2 or 3")])
def test_scene_refuses(asked: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scene(0, **asked)
