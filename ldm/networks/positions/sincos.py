"""Fixed sines and cosines of the row and column."""

from torch import Tensor

from ldm.networks.positions.base import Positions
from ldm.nn.embeddings import grid_sinusoids


class SinCos(Positions):
    """DiT's fixed embedding (arXiv:2212.09748). Another grid is squeezed or stretched to the places that were trained.

    Coordinates are multiplied by base / side, as PixArt-alpha does (arXiv:2310.00426).

    Args:
        base_size: tokens along a side whose places count 0, 1, 2 ...: those of the run that the weights come from. By
            default the network's own rows and columns.
    """

    def __init__(self, base_size: int | None = None) -> None:
        if base_size is not None and base_size < 1:
            raise ValueError(f"base_size={base_size} leaves no place for a token; choose at least 1, or None.")
        self.base_size = base_size

    def table(self, width: int, rows: int, columns: int) -> Tensor:
        return self.scaled(width, (rows, columns), (rows, columns))

    def resized(self, table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        return self.scaled(table.shape[1], own, grid).to(table)

    def scaled(self, width: int, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """The embedding of `grid`, whose sides are as long as those of `own` or `base_size`."""
        base = own if self.base_size is None else (self.base_size, self.base_size)
        return grid_sinusoids(width, *grid, steps=(base[0] / grid[0], base[1] / grid[1]))
