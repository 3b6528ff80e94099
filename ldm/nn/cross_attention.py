"""Multi-head attention of tokens to a context of another width, or to themselves."""

from einops import rearrange
from torch import Tensor, nn

from ldm.nn.attend import attend


class CrossAttention(nn.Module):
    """x (B, N, D) asks, the context (B, L, context_width) answers -> (B, N, D); no biases but that of the output.

    Args:
        width: D.
        num_heads: attention heads.
        head_width: channels of a head.
        context_width: channels of the context; left out, D: x then attends to itself.
    """

    def __init__(self, width: int, num_heads: int, head_width: int, context_width: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner, source = num_heads * head_width, width if context_width is None else context_width
        self.q = nn.Linear(width, inner, bias=False)
        self.k = nn.Linear(source, inner, bias=False)
        self.v = nn.Linear(source, inner, bias=False)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Without a context x attends to itself. `mask` (B, 1, 1, L) bool, True where a token counts."""
        source = x if context is None else context
        q, k, v = (
            rearrange(h, "b n (h d) -> b h n d", h=self.num_heads) for h in (self.q(x), self.k(source), self.v(source))
        )
        return self.out(attend(q, k, v, mask))
