"""How large an image was, and where it was cropped."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.entries import parse_numbers, tensor_of
from ldm.errors import UserError
from ldm.networks.base import Conditioning
from ldm.nn.number_embedding import NumberEmbedding

KEYS = ("original_size", "crop")


class SizeAndCrop(Embedder):
    """Height and width of the image before it was brought to size, and top and left of its crop, all in pixels.

    SDXL's micro-conditioning (Podell et al. 2023, arXiv:2307.01952, section 2.2): small images need not be thrown out,
    nor do their blur and cut-off objects show in samples, which are asked for as large and uncropped unless a user
    says otherwise.

    Args:
        width: width of the vector; the network's `width` (of a U-Net 4 x its `channels`).
        default_size: [height, width] that is asked for where a user names none: that of good images of the set.
        num_frequencies: sinusoids of each of the four numbers.
        dropout: probability with which training drops them.
    """

    keys = KEYS

    def __init__(self, width: int, default_size: list[int], num_frequencies: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        if len(default_size) != 2 or min(default_size) < 1:
            raise ValueError(f"default_size is {default_size}: give [height, width] in pixels, such as [512, 512].")
        self.width, self.default_size, self.num_frequencies = width, default_size, num_frequencies
        self.dropout = check_dropout(dropout)
        self.defaults = {"original_size": list(default_size), "crop": [0, 0]}
        self.embedding = NumberEmbedding(4, width, num_frequencies)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        pairs = [tensor_of(self, batch, key, drop) for key in self.keys]
        there = [pair for pair in pairs if pair is not None]
        if len(there) < len(pairs):
            return Conditioning(vector=self.null.expand(len(drop), -1))
        vector = self.embedding(torch.cat([pair.reshape(len(drop), -1) for pair in there], dim=1))
        return Conditioning(vector=torch.where(drop[:, None], self.null, vector))

    def read(self, key: str, text: str) -> Any:
        return parse_numbers(key, text, 2)

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        for key, values in wish.items():
            least = 1 if key == "original_size" else 0
            for value in values:
                if len(value) != 2 or min(value) < least:
                    raise UserError(
                        f"{key} is two numbers of pixels of at least {least}, and {list(value)} is not that."
                    )
