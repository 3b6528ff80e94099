"""Multi-head self-attention over tokens."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class SelfAttention(nn.Module):
    """(B, N, D) -> (B, N, D), with one fused projection for queries, keys and values."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"A width of {width} does not split into {num_heads} heads: choose a divisor of it.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        attended = scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(attended, "b h n d -> b n (h d)"))
