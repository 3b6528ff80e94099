"""Rotary positions in two dimensions."""

import torch
from torch import Tensor


def rotary_table(head_width: int, rows: int, columns: int, theta: float = 10_000.0) -> Tensor:
    """(2, rows * columns, head_width): cosines and sines by which `rotate` turns a query or key at each place.

    Half of the pairs of channels turn with the row, half with the column, so that the product of a query and a key
    depends on how far apart they are, not on where. Su et al. 2021 (arXiv:2104.09864), per axis as in EVA-02
    (arXiv:2303.11331). Places are counted in tokens, whatever the grid, so a larger grid has distances never seen.
    """
    if head_width % 4:
        raise ValueError(
            f"Rotary positions turn pairs of channels along two axes, and heads of width {head_width} do not split "
            "into them: choose num_heads so that width / num_heads is a multiple of 4."
        )
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    pairs = head_width // 4
    frequencies = theta ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = torch.cat([place.flatten().double()[:, None] * frequencies for place in (row, column)], dim=1)
    angles = torch.cat([angles, angles], dim=1)  # channel i is paired with channel i + head_width / 2
    return torch.stack([angles.cos(), angles.sin()]).float()


def for_grid(table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The `table` of a network's `own` grid (rows, columns), or one like it for another grid."""
    return table if grid == own else rotary_table(table.shape[2], *grid).to(table)


def with_still_tokens(table: Tensor, count: int) -> Tensor:
    """The table for a sequence that begins with `count` tokens that have no place and are not turned."""
    still = torch.stack([torch.ones_like(table[0, :1]), torch.zeros_like(table[1, :1])])
    return torch.cat([still.expand(-1, count, -1), table], dim=1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """x (B, heads, N, head_width) turned by table (2, N, head_width)."""
    cosines, sines = table.unbind(0)
    one, other = x.chunk(2, dim=-1)
    return (x * cosines + torch.cat([-other, one], dim=-1) * sines).to(x.dtype)
