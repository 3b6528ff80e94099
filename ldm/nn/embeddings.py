"""Sinusoidal embeddings: of the noise level, and of a token's place in the image."""

import math

import torch
from torch import Tensor, nn


def sinusoids(values: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """(B,) -> (B, width): cosines first, then sines, at geometrically spaced frequencies.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in the (cos, sin) order of ADM and DiT.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=values.device) / half)
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def grid_sinusoids(width: int, rows: int, columns: int, steps: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """(rows * columns, width): the first half of the channels encodes the column, the second the row.

    The fixed position embedding of DiT (arXiv:2212.09748); sines come before cosines in each half. `steps` are how far
    apart neighbouring rows and neighbouring columns are.
    """
    if width % 4:
        raise ValueError(f"A position embedding of width {width} cannot be halved twice: choose a multiple of 4.")
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = []
    for place, step in ((column, steps[1]), (row, steps[0])):
        frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
        angles = step * place.flatten().double()[:, None] * frequencies
        halves.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    return torch.cat(halves, dim=1).float()


class NoiseEmbedding(nn.Module):
    """What a network is told of the noise level, (B,) -> (B, width): sinusoids, then a two-layer perceptron."""

    def __init__(self, width: int, num_frequencies: int = 256) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.enter = nn.Linear(num_frequencies, width)
        self.leave = nn.Linear(width, width)
        for linear in (self.enter, self.leave):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, noise_condition: Tensor) -> Tensor:
        h = sinusoids(noise_condition, self.num_frequencies).to(self.enter.weight.dtype)
        return self.leave(nn.functional.silu(self.enter(h)))
