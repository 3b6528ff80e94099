"""adaLN-Zero for the noise level, cross-attention for the text."""

from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.blocks.base import NOTHING, Block, BlockKind, Context, Hearing
from ldm.networks.blocks.hearing import TextHearing
from ldm.networks.blocks.parts import Parts
from ldm.nn.modulate import modulate


class AdaLNZeroCross(BlockKind):
    """`AdaLNZero` with an attention to the conditioner's tokens between its two halves: the usual DiT for text.

    Args:
        context_width: channels of the conditioner's tokens.
    """

    def __init__(self, context_width: int) -> None:
        self.context_width: int = context_width

    def hearing(self, parts: Parts) -> Hearing:
        return TextHearing(self.context_width, parts.width)

    def block(self, parts: Parts) -> Block:
        return AdaLNZeroCrossBlock(parts)


class AdaLNZeroCrossBlock(Block):
    """c modulates and gates as in adaLN-Zero; the text is heard through a projection that starts at zero."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm()
        self.attention = parts.attention()
        self.norm_cross = parts.norm(affine=True)
        self.cross = parts.context_attention()
        self.norm2 = parts.norm()
        self.mlp = parts.mlp()
        self.modulation = nn.Linear(parts.width, 6 * parts.width)

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(silu(c)).chunk(6, dim=1)
        h = modulate(self.norm1(x), shift1, scale1)
        x = x + gate1[:, None] * self.attention(h, context.rotary, context.keys)
        if context.tokens is not None:
            x = x + self.cross(self.norm_cross(x), context.tokens, context.mask)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))

    def silence(self) -> None:
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.cross.out.weight)
