"""What is said of a scene: several captions with weights, the canonical one first."""

from ldm.data.shapes.scenes import Scene, Thing, relation
from ldm.data.shapes.words import OPPOSITE, PLACE_PHRASES, RELATION_PHRASES, a


def captions(scene: Scene) -> list[str]:
    """The texts of `weighted_captions`, in its order."""
    return [text for text, _ in weighted_captions(scene)]


def weighted_captions(scene: Scene) -> list[tuple[str, float]]:
    """All that may be said of the scene, with the probability of each; the canonical caption first."""
    if len(scene.things) == 1:
        return _of_one(scene.things[0])
    if len(scene.things) == 2:
        return _of_two(*scene.things)
    return _of_three(*scene.things)


def _plain(thing: Thing) -> str:
    return a(f"{thing.colour} {thing.shape}")


def _sized(thing: Thing) -> str:
    return a(f"{thing.size} {thing.colour} {thing.shape}")


def _placed(thing: Thing) -> str:
    return f"{_plain(thing)} {PLACE_PHRASES[thing.place][0]}"


def _of_one(thing: Thing) -> list[tuple[str, float]]:
    usual, other = PLACE_PHRASES[thing.place]
    return [
        (_placed(thing), 0.35),
        (f"{_sized(thing)} {usual}", 0.3),
        (f"{_plain(thing)} {other}", 0.15),
        (f"{thing.place}: {_plain(thing)}", 0.1),
        (_plain(thing), 0.1),
    ]


def _related(one: Thing, two: Thing) -> str:
    """Raises AssertionError where no relation is clear: `scene` makes none such."""
    found = relation(one, two)
    assert found is not None
    return found


def _of_two(one: Thing, two: Thing) -> list[tuple[str, float]]:
    name = _related(one, two)
    return [
        (f"{_plain(one)} {name} {_plain(two)}", 0.2),
        (f"{_plain(two)} {OPPOSITE[name]} {_plain(one)}", 0.15),
        (f"{_sized(one)} {name} {_sized(two)}", 0.075),
        (f"{_plain(one)} {RELATION_PHRASES[name][-1]} {_plain(two)}", 0.075),
        (f"{_placed(one)} and {_placed(two)}", 0.25),
        (f"{_placed(two)} and {_placed(one)}", 0.25),
    ]


def _of_three(one: Thing, two: Thing, three: Thing) -> list[tuple[str, float]]:
    name = _related(one, two)
    return [
        (f"{_plain(one)}, {_plain(two)} and {_plain(three)}", 0.4),
        (f"{_plain(three)}, {_plain(one)} and {_plain(two)}", 0.2),
        (f"{_plain(one)} {name} {_plain(two)}, and {_plain(three)}", 0.25),
        (f"{_plain(two)} {OPPOSITE[name]} {_plain(one)}, and {_plain(three)}", 0.15),
    ]
