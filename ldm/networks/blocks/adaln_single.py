"""One modulation for the whole network, and a small table of each block."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.base import Conditioning
from ldm.networks.blocks.base import NOTHING, Block, BlockKind, Context, Hearing
from ldm.networks.blocks.head import Head
from ldm.networks.blocks.hearing import ContextEmbedding, add_vector, attended
from ldm.networks.blocks.parts import Parts
from ldm.nn.modulate import modulate


class AdaLNSingle(BlockKind):
    """PixArt-alpha's block (Chen et al. 2023, arXiv:2310.00426, section 2.3), with cross-attention to tokens.

    Shift, scale and gate are those of one linear layer that all blocks share, plus a table of each block: a quarter
    fewer weights than adaLN-Zero. `adaln_single_from` makes one of a trained class-conditional DiT.

    Args:
        context_width: channels of the conditioner's tokens; None: no cross-attention.
    """

    def __init__(self, context_width: int | None = None) -> None:
        self.context_width = context_width

    def hearing(self, parts: Parts) -> Hearing:
        return AdaLNSingleHearing(self.context_width, parts.width)

    def block(self, parts: Parts) -> Block:
        return AdaLNSingleBlock(parts, cross=self.context_width is not None)

    def head(self, parts: Parts, out: int) -> Head:
        return TableHead(parts, out)


class AdaLNSingleHearing(Hearing):
    """The six vectors that all blocks share, from c."""

    def __init__(self, context_width: int | None, width: int) -> None:
        super().__init__()
        self.embed = None if context_width is None else ContextEmbedding(context_width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, level: Tensor, cond: Conditioning) -> tuple[Tensor, Context]:
        c = add_vector(level, cond)
        shared = self.modulation(silu(c)).unflatten(1, (6, -1))  # (B, 6, D)
        context = Context() if self.embed is None else attended(self.embed, cond)
        return c, context._replace(shared=shared)


class AdaLNSingleBlock(Block):
    """Modulated by what is shared plus a table of its own; the text is heard through a projection that starts at 0."""

    def __init__(self, parts: Parts, cross: bool) -> None:
        super().__init__()
        self.norm1 = parts.norm()
        self.attention = parts.attention()
        self.cross = parts.context_attention() if cross else None
        self.norm2 = parts.norm()
        self.mlp = parts.mlp()
        self.table = nn.Parameter(torch.randn(6, parts.width) / parts.width**0.5)

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        assert context.shared is not None  # made by its own hearing
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table + context.shared).unbind(1)
        h = modulate(self.norm1(x), shift1, scale1)
        x = x + gate1[:, None] * self.attention(h, context.rotary, context.keys)
        if self.cross is not None and context.tokens is not None:
            x = x + self.cross(x, context.tokens, context.mask)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))

    def silence(self) -> None:
        if self.cross is not None:
            nn.init.zeros_(self.cross.out.weight)


class TableHead(Head):
    """After a norm that c plus a table shifts and scales."""

    def __init__(self, parts: Parts, out: int) -> None:
        super().__init__()
        self.norm = parts.norm()
        self.table = nn.Parameter(torch.randn(2, parts.width) / parts.width**0.5)
        self.linear = nn.Linear(parts.width, out)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = (self.table + c[:, None]).unbind(1)
        return self.linear(modulate(self.norm(x), shift, scale))
