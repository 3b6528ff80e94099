"""Attention over a feature map whose cost grows with the number of places, not with its square."""

from einops import rearrange
from torch import Tensor, nn

from ldm.nn.cross_attention import CrossAttention
from ldm.nn.spatial_transformer import feature_map, tokens


class LinearAttention(nn.Module):
    """x (B, C, H, W) + what each place reads of one summary a head of the whole map. It starts as the identity.

    Shen et al. 2018 (arXiv:1812.01243): queries are a softmax over features, keys a softmax over places, so that
    q (k^T v) is a mean of values and no matrix of places by places is made.

    Args:
        channels: C.
        num_heads: attention heads.
        head_width: channels of a head.
    """

    def __init__(self, channels: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        inner = num_heads * head_width
        self.num_heads, self.scale = num_heads, head_width**-0.5
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        self.out_norm = nn.GroupNorm(1, channels)
        nn.init.zeros_(self.out_norm.weight)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`context` and `mask` are not heard: they stand here so that it can take a transformer's place."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (three h d) y x -> three b h d (y x)", three=3, h=self.num_heads)
        summary = k.softmax(dim=-1) @ v.transpose(-1, -2)  #                                  (B, heads, d, d)
        h = summary.transpose(-1, -2) @ (q.softmax(dim=-2) * self.scale)  #                   (B, heads, d, H * W)
        return x + self.out_norm(self.out(rearrange(h, "b h d (y x) -> b (h d) y x", y=x.shape[2])))


class MapAttention(nn.Module):
    """x (B, C, H, W) + full attention among its places. It starts as the identity.

    Args:
        channels: C.
        num_heads: attention heads.
        head_width: channels of a head.
    """

    def __init__(self, channels: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.attention = CrossAttention(channels, num_heads, head_width)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`context` and `mask` are not heard."""
        return x + feature_map(self.attention(tokens(self.norm(x))), x.shape[2])
