"""How tokens are told their place in the image."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Positions(ABC):
    """What is added to the patches of a grid.

    Attributes:
        trained: whether the table is trained and saved, or follows from the grid.
    """

    trained: bool = False

    @abstractmethod
    def table(self, width: int, rows: int, columns: int) -> Tensor:
        """(rows * columns, width) for the grid that the network is made for."""

    @abstractmethod
    def resized(self, table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """(N, width) for another `grid` (rows, columns), given the `table` of the network's `own`."""

    def install(self, net: nn.Module, width: int, grid: tuple[int, int]) -> None:
        """Give the network its `pos_embed`: a parameter if it is trained, else a buffer that is not saved."""
        table = self.table(width, *grid)
        if self.trained:
            net.pos_embed = nn.Parameter(table)
        else:
            net.register_buffer("pos_embed", table, persistent=False)

    def add(self, h: Tensor, table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """h (B, N, D), the patches of `grid`, and their places by the `table` of the network's `own` grid."""
        return h + (table if grid == own else self.resized(table, own, grid))
