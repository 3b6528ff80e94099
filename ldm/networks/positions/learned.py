"""A trained embedding of each place."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ldm.networks.positions.base import Positions


class Learned(Positions):
    """A trained vector for each place, as in ViT (arXiv:2010.11929); another grid resizes the table bicubically."""

    trained = True

    def table(self, width: int, rows: int, columns: int) -> Tensor:
        return 0.02 * torch.randn(rows * columns, width)

    def resized(self, table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        image = rearrange(table, "(h w) d -> 1 d h w", h=own[0])
        resized = interpolate(image.float(), size=grid, mode="bicubic", antialias=True)
        return rearrange(resized, "1 d h w -> (h w) d").to(table)
