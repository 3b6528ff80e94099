"""The conditioning as further tokens of the sequence."""

from torch import Tensor

from ldm.networks.base import Conditioning
from ldm.networks.blocks.base import NOTHING, Block, BlockKind, Context, Hearing
from ldm.networks.blocks.head import Head, PlainHead
from ldm.networks.blocks.hearing import ContextEmbedding, add_vector, heard_as_tokens
from ldm.networks.blocks.parts import Parts


class InContext(BlockKind):
    """A plain transformer whose sequence begins with the noise level, the vector and the text as tokens.

    DiT (arXiv:2212.09748), section 3.2. They are taken off before the head.

    Args:
        context_width: channels of the conditioner's tokens; None: it hears the noise level and the vector only.
    """

    def __init__(self, context_width: int | None = None) -> None:
        self.context_width = context_width

    def hearing(self, parts: Parts) -> Hearing:
        return InContextHearing(self.context_width, parts.width)

    def block(self, parts: Parts) -> Block:
        return PlainBlock(parts)

    def head(self, parts: Parts, out: int) -> Head:
        return PlainHead(parts, out)


class InContextHearing(Hearing):
    """What is heard goes in front of the patches."""

    def __init__(self, context_width: int | None, width: int) -> None:
        super().__init__()
        self.embed = None if context_width is None else ContextEmbedding(context_width, width)

    def forward(self, level: Tensor, cond: Conditioning) -> tuple[Tensor, Context]:
        prefix, mask = heard_as_tokens(level, cond, self.embed)
        return add_vector(level, cond), Context(prefix=prefix, prefix_mask=mask)


class PlainBlock(Block):
    """The block of a vision transformer (arXiv:2010.11929), which hears the sequence only."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm(affine=True)
        self.attention = parts.attention()
        self.norm2 = parts.norm(affine=True)
        self.mlp = parts.mlp()

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        x = x + self.attention(self.norm1(x), context.rotary, context.keys)
        return x + self.mlp(self.norm2(x))
