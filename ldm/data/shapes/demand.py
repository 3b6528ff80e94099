"""From a caption to what a picture of it must show, so that anybody's prompts of this grammar can be judged."""

import re
from dataclasses import dataclass

from ldm.data.shapes.scenes import COLOURS, PLACES, SHAPES, SIZES
from ldm.data.shapes.words import PLACE_PHRASES, RELATION_PHRASES
from ldm.errors import UserError


@dataclass(frozen=True)
class Wanted:
    """One object that is asked for; what is None may be anything."""

    shape: str
    colour: str
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Demand:
    """Exactly these objects; `relations` holds (i, name, j): object i is `name` object j, counted in `objects`."""

    objects: tuple[Wanted, ...]
    relations: tuple[tuple[int, str, int], ...] = ()


def _any(words: list[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_PLACE_OF = {phrase: place for place, phrases in PLACE_PHRASES.items() for phrase in phrases}
_RELATION_OF = {phrase: name for name, phrases in RELATION_PHRASES.items() for phrase in phrases}
_OBJECT = rf"(?:an? )?(?:({_any(list(SIZES))}) )?({_any(list(COLOURS))}) ({_any(list(SHAPES))})"
_PLACED = re.compile(rf"(?:({_any(list(PLACES))}): )?{_OBJECT}(?: ({_any(list(_PLACE_OF))}))?")
_RELATED = re.compile(rf"{_OBJECT} ({_any(list(_RELATION_OF))}) {_OBJECT}")
_JOINT = re.compile(r", and |, | and ")


def parse(caption: str) -> Demand:
    """Read a caption: clauses joined by commas or "and", each an object, perhaps with its place, or two related ones.

    Case, doubled spaces and a full stop at the end do not matter.

    Raises:
        UserError: a caption of another grammar, with the part that is not understood.
    """
    objects: list[Wanted] = []
    relations: list[tuple[int, str, int]] = []
    for clause in _JOINT.split(" ".join(caption.lower().split()).removesuffix(".")):
        if found := _RELATED.fullmatch(clause):
            size, colour, shape, phrase, size_2, colour_2, shape_2 = found.groups()
            relations.append((len(objects), _RELATION_OF[phrase], len(objects) + 1))
            objects += [Wanted(shape, colour, size), Wanted(shape_2, colour_2, size_2)]
        elif found := _PLACED.fullmatch(clause):
            before, size, colour, shape, after = found.groups()
            objects.append(Wanted(shape, colour, size, before or (_PLACE_OF[after] if after else None)))
        else:
            raise UserError(
                f"caption {caption!r}: {clause!r} is not understood. Write [small|large] COLOUR SHAPE, with a place "
                f'("at the top left", "on the right", ...) or a relation ({", ".join(RELATION_PHRASES)}) to a second '
                f"object; colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}"
            )
    return Demand(tuple(objects), tuple(relations))
