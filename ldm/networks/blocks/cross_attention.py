"""The conditioning as a sequence that every block attends to."""

from torch import Tensor

from ldm.networks.base import Conditioning
from ldm.networks.blocks.base import NOTHING, Block, BlockKind, Context, Hearing
from ldm.networks.blocks.head import Head, PlainHead
from ldm.networks.blocks.hearing import ContextEmbedding, add_vector, heard_as_tokens
from ldm.networks.blocks.parts import Parts


class CrossAttention(BlockKind):
    """A plain transformer that attends to the noise level, the vector and the text as tokens beside its sequence.

    DiT (arXiv:2212.09748), section 3.2. For text, `AdaLNZeroCross` trains more easily.

    Args:
        context_width: channels of the conditioner's tokens; None: it hears the noise level and the vector only.
    """

    def __init__(self, context_width: int | None = None) -> None:
        self.context_width = context_width

    def hearing(self, parts: Parts) -> Hearing:
        return CrossAttentionHearing(self.context_width, parts.width)

    def block(self, parts: Parts) -> Block:
        return CrossAttentionBlock(parts)

    def head(self, parts: Parts, out: int) -> Head:
        return PlainHead(parts, out)


class CrossAttentionHearing(Hearing):
    """One sequence of all that is heard."""

    def __init__(self, context_width: int | None, width: int) -> None:
        super().__init__()
        self.embed = None if context_width is None else ContextEmbedding(context_width, width)

    def forward(self, level: Tensor, cond: Conditioning) -> tuple[Tensor, Context]:
        tokens, mask = heard_as_tokens(level, cond, self.embed)
        return add_vector(level, cond), Context(tokens, None if mask is None else mask[:, None, None])


class CrossAttentionBlock(Block):
    """Attention within, attention to the context, a perceptron."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm(affine=True)
        self.attention = parts.attention()
        self.norm_cross = parts.norm(affine=True)
        self.cross = parts.context_attention()
        self.norm2 = parts.norm(affine=True)
        self.mlp = parts.mlp()

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        x = x + self.attention(self.norm1(x), context.rotary, context.keys)
        if context.tokens is not None:
            x = x + self.cross(self.norm_cross(x), context.tokens, context.mask)
        return x + self.mlp(self.norm2(x))
