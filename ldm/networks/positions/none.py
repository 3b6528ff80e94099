"""No embedding of the place."""

import torch
from torch import Tensor

from ldm.networks.positions.base import Positions


class NoPositions(Positions):
    """Zeros; for rotary positions, which tell attention all it needs."""

    def table(self, width: int, rows: int, columns: int) -> Tensor:
        return torch.zeros(rows * columns, width)

    def resized(self, table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        return table.new_zeros(grid[0] * grid[1], table.shape[1])
