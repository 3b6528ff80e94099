"""Halving and doubling a feature map."""

import torch.nn.functional as F
from torch import Tensor, nn


class Downsample(nn.Module):
    """Halves H and W (both even) with a 3x3 convolution of stride 2.

    It pads on the right and at the bottom only, as the published latent diffusion autoencoders do: their
    weights need exactly this. (Diffusion U-Nets pad all four sides.)

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # (B, C, H/2, W/2)
        return h


class CentredDownsample(nn.Module):
    """Halves H and W with a 3x3 convolution of stride 2 that pads all four sides, as diffusion U-Nets do.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B, C, H/2, W/2)


class Upsample(nn.Module):
    """Doubles H and W: nearest neighbour, then a 3x3 convolution (no checkerboard of a transposed one).

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # (B, C, 2H, 2W)
        return h
