"""Multi-head attention of one sequence to another."""

from einops import rearrange
from torch import Tensor, nn

from ldm.nn.attend import attend
from ldm.nn.attention import QKNorm, split_width


class ContextAttention(nn.Module):
    """x (B, N, D) asks, context (B, L, D) answers -> (B, N, D). Keys and values share one projection.

    Args:
        width: D, of both sequences.
        num_heads: attention heads, a divisor of `width`.
        qk_norm: bring the queries and keys of each head to one length.
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_width = split_width(width, num_heads)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.qk_norm = QKNorm(head_width) if qk_norm else None

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (B, 1, 1, L) bool, True where a token of the context counts; each row needs one that does."""
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.num_heads)
        k, v = rearrange(self.kv(context), "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k)
        return self.out(attend(q, k, v, mask))
