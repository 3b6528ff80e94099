"""The words of captions: what captions are written in and read by."""

from ldm.data.shapes.scenes import PLACES

# Name -> (axis, sign): which way from the second object the first one lies; axis 0 is x to the right, 1 is y downwards.
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
# Ways to say each: the usual one first.
RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def _place_phrases(place: str) -> tuple[str, ...]:
    if place == "center":
        return ("in the center", "in the middle")
    column, row = PLACES[place]
    if column != 1 and row != 1:
        return (f"at the {place}", f"in the {place} corner")
    return (f"{'at' if column == 1 else 'on'} the {place}", f"near the {place} edge")


PLACE_PHRASES = {place: _place_phrases(place) for place in PLACES}


def a(words: str) -> str:
    """`words` after their article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
