"""Fixed sines and cosines of the relative place, from edge to edge."""

import math

import torch
from torch import Tensor

from ldm.networks.positions.base import Positions


class Fractional(Positions):
    """Places are fractions of the sides in [0, 1], so every size and aspect ratio has the same range of places.

    The fractional embeddings of NaViT (arXiv:2307.06304, section 2.1): a token's place is the middle of its patch,
    (i + 1/2) / side. The sines run from half a wave over the image to `finest` waves; the first half of the channels
    tells the column, the second the row.

    Args:
        finest: waves across the image of the highest frequency; about half the tokens along the longest side.
    """

    def __init__(self, finest: float = 32.0) -> None:
        if finest <= 0.5:
            raise ValueError(f"finest={finest} is not above the half wave of the lowest frequency; choose 32, say.")
        self.finest = finest

    def table(self, width: int, rows: int, columns: int) -> Tensor:
        if width % 4:
            raise ValueError(f"A position embedding of width {width} cannot be halved twice: choose a multiple of 4.")
        waves = 2 * math.pi * 0.5 * (2 * self.finest) ** torch.linspace(0, 1, width // 4, dtype=torch.float64)
        fractions = [(torch.arange(side, dtype=torch.float64) + 0.5) / side for side in (rows, columns)]
        row, column = torch.meshgrid(*fractions, indexing="ij")
        angles = [place.flatten()[:, None] * waves for place in (column, row)]
        return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()

    def resized(self, table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        return self.table(table.shape[1], *grid).to(table)
