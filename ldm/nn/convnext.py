"""The ConvNeXt block, told the noise level."""

import torch.nn.functional as F
from torch import Tensor, nn


class ModulatedConvNeXt(nn.Module):
    """x + conv(norm(gelu(conv(norm(depthwise conv(x) + embedding))))); a 1x1 convolution on x where the width changes.

    ConvNeXt (Liu et al. 2022, arXiv:2201.03545) with 3x3 convolutions in place of the perceptron and one group in
    place of the layer norm, as in "The Annotated Diffusion Model" (Rogge & Rasul 2022). It starts as the
    shortcut alone.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        embedding_width: Channels of the embedding of the noise level.
        expansion: Inner channels, in units of `out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_width: int, expansion: int = 2) -> None:
        super().__init__()
        inner = expansion * out_channels
        self.depthwise = nn.Conv2d(in_channels, in_channels, 7, padding=3, groups=in_channels)
        self.modulation = nn.Linear(embedding_width, in_channels)
        self.norm1 = nn.GroupNorm(1, in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 3, padding=1)
        self.norm2 = nn.GroupNorm(1, inner)
        self.conv2 = nn.Conv2d(inner, out_channels, 3, padding=1)
        same_width = in_channels == out_channels
        self.shortcut = nn.Identity() if same_width else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, in_channels, H, W), embedding (B, embedding_width)."""
        h = self.depthwise(x) + self.modulation(F.gelu(embedding))[:, :, None, None]  # (B, in_channels, H, W)
        h = self.norm2(F.gelu(self.conv1(self.norm1(h))))  #                            (B, inner, H, W)
        return self.shortcut(x) + self.conv2(h)
