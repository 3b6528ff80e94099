"""Does a picture show what its caption says? The judge of the captioned set `shapes`."""

from dataclasses import dataclass
from itertools import permutations

from PIL import Image

from ldm.data.shapes import RELATIONS, Demand, Wanted, parse
from ldm.evaluation.shapes_reader import Found, read

ASPECTS = ("count", "colour", "shape", "object", "place", "relation", "size")
ESSENTIAL = ("count", "object", "place", "relation")
MOST_FOUND = 6  # a picture with more objects is matched by its largest


@dataclass(frozen=True)
class Verdict:
    """What is right in one picture.

    Attributes:
        right: number of objects, the colour and shape of each, places and relations are as asked. Sizes do not enter.
        aspects: of ASPECTS, those that the caption speaks of, and whether each is right of all that it asks for.
            "colour" is right where the colours asked for are there on whatever shape, "shape" likewise; "object" where
            the two come together as asked.
        found: what was read from the picture.
    """

    right: bool
    aspects: dict[str, bool]
    found: tuple[Found, ...]


def judge(caption: str, image: Image.Image) -> Verdict:
    """Compare a picture of 64 x 64 pixels with its caption.

    Objects asked for and objects found are matched so that as much as possible is right. Left of, right of, above and
    below are right where the distance between the centres is greater along that axis, to that side.

    Raises:
        UserError: a caption that `ldm.data.shapes.parse` does not understand.
        ValueError: another size of picture.
    """
    return judge_found(parse(caption), read(image))


def judge_found(demand: Demand, found: list[Found]) -> Verdict:
    """The verdict on objects that were read, the largest first."""
    candidates: list[Found | None] = [*found[:MOST_FOUND]]
    candidates += [None] * (len(demand.objects) - len(candidates))
    best = max((_rights(demand, match) for match in permutations(candidates, len(demand.objects))), key=_merit)
    aspects = {
        "count": len(found) == len(demand.objects),
        "colour": _all_in([wanted.colour for wanted in demand.objects], [thing.colour for thing in found]),
        "shape": _all_in([wanted.shape for wanted in demand.objects], [thing.shape for thing in found]),
        **{name: all(rights) for name, rights in best.items() if rights},
    }
    return Verdict(all(aspects.get(name, True) for name in ESSENTIAL), aspects, tuple(found))


def _all_in(wanted: list[str], found: list[str | None]) -> bool:
    return all(found.count(name) >= wanted.count(name) for name in wanted)


def _merit(rights: dict[str, list[bool]]) -> tuple[int, ...]:
    return tuple(sum(rights[name]) for name in ("object", "place", "relation", "size"))


def _rights(demand: Demand, match: tuple[Found | None, ...]) -> dict[str, list[bool]]:
    """Of each aspect that depends on the match: whether it is right of each object, or relation, asked for."""
    pairs = list(zip(demand.objects, match, strict=True))
    return {
        "object": [thing is not None and _pair(wanted) == _pair(thing) for wanted, thing in pairs],
        "place": [thing is not None and want.place == thing.place for want, thing in pairs if want.place],
        "relation": [_related(match[i], name, match[j]) for i, name, j in demand.relations],
        "size": [thing is not None and want.size == thing.size for want, thing in pairs if want.size],
    }


def _pair(thing: Wanted | Found) -> tuple[str | None, str | None]:
    return thing.colour, thing.shape


def _related(one: Found | None, name: str, two: Found | None) -> bool:
    if one is None or two is None:
        return False
    axis, sign = RELATIONS[name]
    apart = (one.x - two.x, one.y - two.y)
    return sign * apart[axis] > abs(apart[1 - axis])
