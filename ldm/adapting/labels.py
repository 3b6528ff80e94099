"""The vectors of classes, where the classes are others than they were."""

from collections.abc import Sequence

import torch
from torch import Tensor


def places(
    before: Sequence[str] | None, after: Sequence[str] | None, count_before: int, count_after: int
) -> list[int | None]:
    """Where each class was before, None where it was not: by name if both sides have names, else by number."""
    if before is None or after is None:
        return [place if place < count_before else None for place in range(count_after)]
    known = {name: place for place, name in enumerate(before) if place < count_before}
    named = [known.get(name) for name in after[:count_after]]
    return named + [None] * (count_after - len(named))


def label_rows(table: Tensor, where: Sequence[int | None]) -> Tensor:
    """A label table (len(where) + 1, D) of the one before (num_classes + 1, D); "no class" is the last row of both.

    A class that is new starts as the mean of all classes that were known: that is a vector of about what the network
    was trained with, even if no class was ever dropped.
    """
    mean = table[:-1].mean(0)
    rows = [mean if place is None else table[place] for place in where]
    return torch.stack([*rows, table[-1]])
