"""Spatial transformers: self-attention, attention to tokens, gated perceptrons."""

from collections.abc import Sequence

from ldm.networks.unet_parts.base import UNetAttention
from ldm.nn.attention import split_width
from ldm.nn.spatial_transformer import SpatialTransformer


class Transformers(UNetAttention):
    """Those of latent diffusion. A head is `head_width` wide, or the channels are split into `num_heads`.

    Args:
        num_heads: attention heads at every level (8 in Stable Diffusion 1).
        head_width: channels of a head at every level (64 in Stable Diffusion 2 and XL); it overrides `num_heads`.
        depth: transformer blocks in each place: one number, or one for each level from the finest; the middle of the
            U-Net has that of the coarsest.
        linear_projections: linear layers around the blocks (Stable Diffusion 2 and XL), not 1x1 convolutions.
    """

    hears_tokens = True

    def __init__(
        self,
        num_heads: int = 8,
        head_width: int | None = None,
        depth: int | Sequence[int] = 1,
        linear_projections: bool = False,
    ) -> None:
        depths = [depth] if isinstance(depth, int) else list(depth)
        if min(depths, default=0) < 1:
            raise ValueError(f"depth={depth}: choose at least 1, and attention_levels for where there are any.")
        if (head_width is not None and head_width < 1) or num_heads < 1:
            raise ValueError(f"num_heads={num_heads}, head_width={head_width}: choose numbers of at least 1.")
        self.num_heads, self.head_width, self.depth = num_heads, head_width, depth
        self.linear_projections = linear_projections

    def check(self, num_levels: int) -> None:
        if not isinstance(self.depth, int) and len(self.depth) != num_levels:
            raise ValueError(
                f"depth has {len(self.depth)} numbers and channel_multipliers {num_levels}: give one for each level."
            )

    def attention(
        self, channels: int, level: int, lowest: bool, context_width: int | None, groups: int | None
    ) -> SpatialTransformer:
        if self.head_width is None:
            num_heads, head_width = self.num_heads, split_width(channels, self.num_heads)
        else:
            num_heads, head_width = self.heads_of(channels, self.head_width), self.head_width
        depth = self.depth if isinstance(self.depth, int) else self.depth[level]
        return SpatialTransformer(
            channels, num_heads, head_width, depth, context_width, self.linear_projections, groups
        )

    @staticmethod
    def heads_of(channels: int, head_width: int) -> int:
        if channels % head_width:
            raise ValueError(f"A head_width of {head_width} does not divide {channels} channels: choose a divisor.")
        return channels // head_width
