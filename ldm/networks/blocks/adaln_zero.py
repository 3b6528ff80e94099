"""Adaptive layer norm with gates that start closed."""

from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.blocks.base import NOTHING, Block, BlockKind, Context, Hearing
from ldm.networks.blocks.hearing import VectorHearing
from ldm.networks.blocks.parts import Parts
from ldm.nn.modulate import modulate


class AdaLNZero(BlockKind):
    """Attention, then a perceptron, each modulated before and gated after by c. DiT (arXiv:2212.09748), section 3.2."""

    def hearing(self, parts: Parts) -> Hearing:
        return VectorHearing()

    def block(self, parts: Parts) -> Block:
        return AdaLNZeroBlock(parts)


class AdaLNZeroBlock(Block):
    """Six vectors of c: shift, scale and gate of the attention and of the perceptron. It starts as the identity."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm()
        self.attention = parts.attention()
        self.norm2 = parts.norm()
        self.mlp = parts.mlp()
        self.modulation = nn.Linear(parts.width, 6 * parts.width)

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(silu(c)).chunk(6, dim=1)
        h = modulate(self.norm1(x), shift1, scale1)
        x = x + gate1[:, None] * self.attention(h, context.rotary, context.keys)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))

    def silence(self) -> None:
        nn.init.zeros_(self.modulation.weight)
