"""Adaptive layer norm without gates."""

from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.blocks.base import NOTHING, Block, BlockKind, Context, Hearing
from ldm.networks.blocks.hearing import VectorHearing
from ldm.networks.blocks.parts import Parts
from ldm.nn.modulate import modulate


class AdaLN(BlockKind):
    """As `AdaLNZero`, but nothing is gated, and a block speaks from the start. DiT (arXiv:2212.09748), section 3.2."""

    def hearing(self, parts: Parts) -> Hearing:
        return VectorHearing()

    def block(self, parts: Parts) -> Block:
        return AdaLNBlock(parts)


class AdaLNBlock(Block):
    """Four vectors of c: shift and scale of two norms, which start as plain ones."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm()
        self.attention = parts.attention()
        self.norm2 = parts.norm()
        self.mlp = parts.mlp()
        self.modulation = nn.Linear(parts.width, 4 * parts.width)

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        shift1, scale1, shift2, scale2 = self.modulation(silu(c)).chunk(4, dim=1)
        x = x + self.attention(modulate(self.norm1(x), shift1, scale1), context.rotary, context.keys)
        return x + self.mlp(modulate(self.norm2(x), shift2, scale2))

    def silence(self) -> None:
        nn.init.zeros_(self.modulation.weight)
