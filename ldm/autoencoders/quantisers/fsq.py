"""Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505): each channel is rounded to a few levels."""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ldm.autoencoders.quantisers.base import Quantised, Quantiser, straight_through
from ldm.seeding import Draws

MARGIN = 1e-3  # the outermost level is reached by a finite latent


class FSQ(Quantiser):
    """Rounds channel i to one of levels[i] values in [-1, 1]; no codebook is learned and none can collapse.

    Args:
        levels: number of values of each channel, each 2 or more, best 5 or more; their product is the vocabulary. The
            paper's: [8, 6, 5] for 2^8, [8, 5, 5, 5] for 2^10, [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14.
    """

    steps: Tensor
    strides: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ's levels are {list(levels)}: give each channel at least 2, such as [8, 5, 5, 5].")
        super().__init__(len(levels), math.prod(levels))
        self.levels = list(levels)
        strides = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("steps", torch.tensor(self.levels))  # in the weights, for it changes what they decode to
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def bounded(self, z: Tensor) -> Tensor:
        """In (-1, 1) up to a margin, so that half a step beyond the outermost levels rounds to them."""
        steps = rearrange(self.steps, "c -> c 1 1")
        reach = (steps - 1) * (1 + MARGIN) / 2  # in steps, from the middle
        shifted = torch.where(steps % 2 == 0, 0.5, 0.0)  # an even number of levels has none in the middle
        middle = torch.atanh(shifted / reach)
        return (torch.tanh(z.float() + middle) * reach - shifted) / (steps // 2)

    def codes(self, z: Tensor) -> Tensor:
        steps, strides = (rearrange(x, "c -> c 1 1") for x in (self.steps, self.strides))
        digits = (z.float() * (steps // 2)).round() + steps // 2
        return (digits.clamp(torch.zeros_like(steps), steps - 1).long() * strides).sum(1)

    def words(self, codes: Tensor) -> Tensor:
        steps, strides = (rearrange(x, "c -> c 1 1") for x in (self.steps, self.strides))
        digits = rearrange(codes, "b h w -> b 1 h w") // strides % steps
        return (digits - steps // 2) / (steps // 2)

    def learn(self, z: Tensor, draws: Draws) -> Quantised:
        codes = self.codes(z.detach())
        return Quantised(straight_through(z, self.words(codes)), codes, {})
