"""Transformer blocks over the places of a feature map (Rombach et al. 2021, arXiv:2112.10752, appendix E.2.1)."""

from einops import rearrange
from torch import Tensor, nn

from ldm.nn.cross_attention import CrossAttention
from ldm.nn.geglu import GEGLU
from ldm.nn.resnet import group_norm


class TransformerBlock(nn.Module):
    """Attention of tokens to themselves, then to a context if there is one to hear, then a gated perceptron.

    Args:
        width: channels of a token.
        num_heads: attention heads.
        head_width: channels of a head.
        context_width: channels of the context; None if the block hears none.
    """

    def __init__(self, width: int, num_heads: int, head_width: int, context_width: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = CrossAttention(width, num_heads, head_width)
        self.norm2 = None if context_width is None else nn.LayerNorm(width)
        self.cross_attention = (
            None if context_width is None else CrossAttention(width, num_heads, head_width, context_width)
        )
        self.norm3 = nn.LayerNorm(width)
        self.mlp = GEGLU(width)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        x = x + self.self_attention(self.norm1(x))
        if self.cross_attention is not None and self.norm2 is not None:
            x = x + self.cross_attention(self.norm2(x), context, mask)
        return x + self.mlp(self.norm3(x))


class SpatialTransformer(nn.Module):
    """x (B, C, H, W) + projected blocks; each place is a token. It starts as the identity.

    Args:
        channels: C, and the width of the blocks.
        num_heads: attention heads.
        head_width: channels of a head.
        depth: number of blocks.
        context_width: channels of the context that the blocks attend to; None if they hear none.
        linear_projections: linear layers around the blocks, not 1x1 convolutions: the same function, other shapes.
        groups: groups of the norm, as of `group_norm`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        head_width: int,
        depth: int = 1,
        context_width: int | None = None,
        linear_projections: bool = False,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        self.linear_projections = linear_projections
        self.norm = group_norm(channels, eps=1e-6, groups=groups)
        self.enter: nn.Linear | nn.Conv2d
        self.leave: nn.Linear | nn.Conv2d
        if linear_projections:
            self.enter, self.leave = nn.Linear(channels, channels), nn.Linear(channels, channels)
        else:
            self.enter, self.leave = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, num_heads, head_width, context_width) for _ in range(depth)
        )
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """context (B, L, context_width); mask (B, 1, 1, L) bool, True where a token counts."""
        h = self.norm(x)
        h = self.enter(tokens(h)) if self.linear_projections else tokens(self.enter(h))  # (B, H * W, C)
        for block in self.blocks:
            h = block(h, context, mask)
        rows = x.shape[2]
        return x + (feature_map(self.leave(h), rows) if self.linear_projections else self.leave(feature_map(h, rows)))


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return rearrange(x, "b c h w -> b (h w) c")


def feature_map(x: Tensor, rows: int) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W), H = rows."""
    return rearrange(x, "b (h w) c -> b c h w", h=rows)
