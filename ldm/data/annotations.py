"""What a sample's json member says of it: each field becomes an entry of the sample, and captions are drawn."""

import json
import math
from collections.abc import Sequence
from typing import Any

import torch

Fields = dict[str, Any]

CAPTIONS, WEIGHTS = "captions", "caption_weights"
SIZES = ("original_size", "crop")  # of an image as it was before, and of the crop; latents find both in their json
MADE = frozenset({"keys", "shards", "positions", "step", "images", "moments", "labels", "maps", CAPTIONS, WEIGHTS})


def parse_fields(data: bytes) -> Fields:
    """The fields of a json member. NaN and infinities, which some writers put where nothing is known, are None.

    Raises:
        ValueError: no UTF-8, no JSON, no object, or captions that none can be drawn of.
    """
    try:
        fields = json.loads(data.decode("utf-8-sig"), parse_constant=lambda _: None)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_fields(fields)
    return fields


def check_fields(fields: Any) -> None:
    """Raise a ValueError if these are no fields of a sample."""
    if not isinstance(fields, dict):
        raise ValueError("it is no object of fields, such as {" + '"score": 6.5}')
    captions, weights = fields.get(CAPTIONS), fields.get(WEIGHTS)
    if captions is None:
        if weights is not None:
            raise ValueError(f"it has {WEIGHTS} and no {CAPTIONS}")
        return
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
        raise ValueError(f"its {CAPTIONS} are no list of texts")
    if weights is None:
        return
    numbers = isinstance(weights, list) and all(is_number(weight) and 0 <= weight < math.inf for weight in weights)
    if not numbers or len(weights) != len(captions) or not sum(weights) > 0:
        raise ValueError(f"its {WEIGHTS} are not one number of at least 0 for each of its {len(captions)} captions")


def to_json(fields: Fields) -> str:
    """The same text for the same fields."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def entries(fields: Fields) -> Fields:
    """The entries of a sample that its fields become by their own names; what the data makes itself is no field's."""
    return {name: value for name, value in fields.items() if name not in MADE and value is not None}


def known_fields(fields: Fields) -> set[str]:
    """Names of the entries that fields give, drawn captions among them."""
    return set(entries(fields)) | ({CAPTIONS} if fields.get(CAPTIONS) else set())


def captions_in(fields: Fields) -> list[str]:
    """All captions of the fields, none where they have none."""
    captions = fields.get(CAPTIONS) or []
    return [captions] if isinstance(captions, str) else captions


def drawn_place(fields: Fields, generator: torch.Generator | None) -> int:
    """Which of the captions is heard: drawn by their weights (all alike where there are none), else the first."""
    captions = captions_in(fields)
    if generator is None or len(captions) < 2:
        return 0
    weights = torch.tensor(fields.get(WEIGHTS) or [1.0] * len(captions), dtype=torch.float64)
    drawn = torch.rand(1, generator=generator, dtype=torch.float64) * weights.sum()
    place = int(torch.searchsorted(weights.cumsum(0), drawn, right=True))
    return min(place, len(captions) - 1)


def caption_of(fields: Fields, generator: torch.Generator | None = None) -> str | None:
    """The caption that is heard, see `drawn_place`; None where the fields have none."""
    captions = captions_in(fields)
    return captions[drawn_place(fields, generator)] if captions else None


def collated(values: Sequence[Any]) -> Any:
    """The values of one entry, one a sample, as a batch has them.

    Numbers and equally long lists of numbers become a tensor (int64 if all are whole, else float32), yes and no a
    tensor of bool. Text, and whatever else there is (a hash of 64 bits, say), stays a list; what a sample lacks is None
    in it.
    """
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    lengths = {len(value) if isinstance(value, list) else -1 for value in values}
    if not flat or len(lengths) > 1:
        return list(values)
    if all(isinstance(item, bool) for item in flat):
        return torch.tensor(values)
    if all(is_number(item) and abs(item) < 2**63 for item in flat):
        whole = all(isinstance(item, int) for item in flat)
        return torch.tensor(values, dtype=torch.int64 if whole else torch.float32)
    return list(values)


def is_number(value: Any) -> bool:
    """Whether JSON's value is a number, yes and no being none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
