"""Multi-head self-attention over tokens."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from ldm.nn.attend import attend
from ldm.nn.rotary import rotate


class SelfAttention(nn.Module):
    """(B, N, D) -> (B, N, D), with one fused projection for queries, keys and values.

    Args:
        width: D.
        num_heads: attention heads, a divisor of `width`.
        qk_norm: bring the queries and keys of each head to one length (`QKNorm`).
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_width = split_width(width, num_heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.qk_norm = QKNorm(head_width) if qk_norm else None

    def forward(self, x: Tensor, rotary: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """`rotary` as of `rotary_table` (2, N, D / num_heads); `keys` (B, 1, 1, N) bool, True where a token counts."""
        q, k, v = self.heads(x)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return self.out(attend(q, k, v, keys))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, num_heads, N, D / num_heads) of x (B, N, D)."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k)
        return q, k, v


class QKNorm(nn.Module):
    """An RMS norm on the queries and one on the keys of each head, so that no attention logit can run away.

    Dehghani et al. 2023 (arXiv:2302.05442), section 2, with the RMS norms of Esser et al. 2024 (arXiv:2403.03206).
    """

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.q = HeadNorm(head_width)
        self.k = HeadNorm(head_width)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.q(q), self.k(k)


class HeadNorm(nn.RMSNorm):
    """An RMS norm of (..., head_width) in the precision of what it is given: attention wants q, k and v in one."""

    def __init__(self, head_width: int) -> None:
        super().__init__(head_width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def split_width(width: int, num_heads: int) -> int:
    """Channels of one head."""
    if width % num_heads:
        raise ValueError(f"A width of {width} does not split into {num_heads} heads: choose a divisor of it.")
    return width // num_heads
