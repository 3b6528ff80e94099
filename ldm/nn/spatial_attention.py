"""Single-head self-attention over the positions of a feature map."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.nn.resnet import group_norm


class SpatialAttention(nn.Module):
    """x + attention(norm(x)), one head as wide as the map; each of the H*W positions is a token.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x))  #                                                 (B, 3C, H, W)
        q, k, v = rearrange(qkv, "b (three c) h w -> three b 1 (h w) c", three=3)  #    (B, 1, H*W, C) each
        h = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(rearrange(h, "b 1 (h w) c -> b c h w", h=x.shape[2]))  # (B, C, H, W)
        return out
