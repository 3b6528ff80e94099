"""Any number that is known of an image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.entries import parse_numbers, tensor_of
from ldm.errors import UserError
from ldm.networks.base import Conditioning
from ldm.nn.number_embedding import NumberEmbedding


class Number(Embedder):
    """A number of the samples' json, such as an aesthetic score, by sinusoids and a perceptron.

    Args:
        key: the field, such as score.
        width: width of the vector; the network's `width` (of a U-Net 4 x its `channels`).
        scale: what the number is multiplied with first. The fastest sinusoid turns once in 6.3: for numbers that differ
            by 1, 1 is right, for numbers between 0 and 1 it is 100.
        default: the number that is asked for where a user names none; left out, none.
        num_frequencies: sinusoids, cosines and sines together.
        dropout: probability with which training drops the number.
    """

    def __init__(
        self,
        key: str,
        width: int,
        scale: float = 1.0,
        default: float | None = None,
        num_frequencies: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not key or not scale > 0:
            raise ValueError(f"key is {key!r} and scale {scale}: name a field, and scale it by more than 0.")
        self.key, self.width, self.scale, self.default = key, width, scale, default
        self.num_frequencies, self.dropout = num_frequencies, check_dropout(dropout)
        self.keys = (key,)
        self.defaults = {} if default is None else {key: default}
        self.embedding = NumberEmbedding(1, width, num_frequencies)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        values = tensor_of(self, batch, self.key, drop)
        if values is None:
            return Conditioning(vector=self.null.expand(len(drop), -1))
        if values.dim() != 1:
            raise UserError(
                f"The embedder Number reads one number in {self.key!r}, and finds {values.shape[1]} of each sample: "
                "give each a field of its own, or use Attributes for whole numbers."
            )
        vector = self.embedding(self.scale * values.float()[:, None])
        return Conditioning(vector=torch.where(drop[:, None], self.null, vector))

    def read(self, key: str, text: str) -> float:
        return parse_numbers(key, text, 1)[0]

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        for value in wish.get(self.key, ()):
            parse_numbers(self.key, str(float(value)), 1)
