"""Several labels of one image at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.entries import check_below, parse_numbers, tensor_of
from ldm.errors import UserError
from ldm.networks.base import Conditioning

UNKNOWN = -1


class Attributes(Embedder):
    """Several labels at once: each has its own learned vectors, one of them for "not said", and their sum is heard.

    Each attribute is a whole number from 0; -1 says nothing of it. What an image has or has not (several at a time) is
    attributes of 2 values, such as `num_values: [2, 2, 2]`.

    Args:
        num_values: how many values each attribute has: a list for the numbers of one field, [7, 2] for
            {"attributes": [3, 1]}; or by name for fields of their own, {colour: 7, large: 2} for
            {"colour": 3, "large": 1}.
        width: width of the vector; the network's `width` (of a U-Net 4 x its `channels`).
        key: field that holds the numbers of a list.
        dropout: probability with which training drops all attributes of a row.
        dropout_each: probability with which it drops each attribute by itself, so that a user may leave some unsaid.
    """

    def __init__(
        self,
        num_values: list[int] | dict[str, int],
        width: int,
        key: str = "attributes",
        dropout: float = 0.1,
        dropout_each: float = 0.0,
    ) -> None:
        super().__init__()
        counts = list(num_values.values()) if isinstance(num_values, dict) else list(num_values)
        if not counts or min(counts) < 1:
            raise ValueError(f"num_values is {num_values}: give at least one attribute, each with at least one value.")
        self.num_values, self.width, self.key = num_values, width, key
        self.dropout, self.dropout_each = check_dropout(dropout), check_dropout(dropout_each)
        self.keys = tuple(num_values) if isinstance(num_values, dict) else (key,)
        self.counts = counts
        self.embedding = nn.Embedding(sum(counts) + len(counts), width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        counts = torch.tensor(self.counts, device=drop.device)  # (A,); the null is row `count` of each table
        unsaid = drop[:, None].expand(-1, len(counts))  # (B, A)
        if draws is not None and self.dropout_each > 0:
            unsaid = unsaid | torch.stack([draws.uniform() < self.dropout_each for _ in self.counts], dim=1)
        values = self.values(batch, drop)
        if values is None:
            values = torch.full_like(unsaid, UNKNOWN, dtype=torch.long)
        rows = torch.where(unsaid | (values == UNKNOWN), counts, values)
        places = rows + (counts + 1).cumsum(0) - counts - 1
        valid = (rows >= 0) & (rows <= counts)  # else it would be another attribute's
        vectors = self.embedding(torch.where(valid, places, self.embedding.num_embeddings))  # (B, A, D)
        return Conditioning(vector=vectors.sum(1))

    def values(self, batch: Mapping[str, Any], drop: Tensor) -> Tensor | None:
        """(B, A) int64, None where there are none, as every row is dropped."""
        found = [tensor_of(self, batch, key, drop) for key in self.keys]
        there = [column.reshape(len(drop), -1) for column in found if column is not None]
        if len(there) < len(found):
            return None
        values = torch.cat(there, dim=1)
        if values.is_floating_point():
            raise UserError(
                f"The embedder Attributes reads whole numbers in {', '.join(self.keys)}, and finds others: use Number "
                "for those, or pack the set again."
            )
        if values.shape[1] != len(self.counts):
            raise UserError(
                f"The embedder Attributes knows {len(self.counts)} attributes, and the samples have {values.shape[1]} "
                f"in {', '.join(self.keys)}: set its num_values to one number for each."
            )
        for place, count in enumerate(self.counts):
            key = self.keys[place] if len(self.keys) == len(self.counts) else self.key
            column = values[:, place]
            check_below(self, key, column, ~drop & (column != UNKNOWN), count)
        return values.long()

    def read(self, key: str, text: str) -> Any:
        numbers = parse_numbers(key, text, 1 if isinstance(self.num_values, dict) else len(self.counts))
        return numbers[0] if isinstance(self.num_values, dict) else numbers

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        unnamed = [key for key in self.keys if key not in wish]
        if unnamed:
            named = ", ".join(key for key in self.keys if key in wish)
            raise UserError(
                f"{named}: asked for without {', '.join(unnamed)}: name all, with -1 for what is not to be said."
            )
        for key, values in wish.items():
            counts = [self.num_values[key]] if isinstance(self.num_values, dict) else self.counts
            for value in values:
                numbers = [value] if isinstance(self.num_values, dict) else list(value)
                whole = len(numbers) == len(counts) and all(int(number) == number for number in numbers)
                if not whole or any(not -1 <= number < count for number, count in zip(numbers, counts, strict=True)):
                    known = ", ".join(f"0 to {count - 1}" for count in counts)
                    raise UserError(f"{key} may be {known} (-1: not said), and {value} is not that.")
