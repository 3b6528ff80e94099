"""Halving and doubling a feature map."""

import torch.nn.functional as F
from einops import reduce, repeat
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


class ResidualDownsample(nn.Module):
    """Halves H and W: the convolution of `Downsample` plus a shortcut without parameters.

    The shortcut moves each 2x2 patch into channels and averages them in groups of 4 * in_channels / out_channels that
    stand next to each other, so the convolution learns only what this leaves out: the residual autoencoding of DC-AE
    (Chen et al. 2024, arXiv 2410.10733, section 3.2).

    Args:
        in_channels: Channels in.
        out_channels: Channels out, a divisor of 4 * in_channels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if 4 * in_channels % out_channels:
            raise ValueError(
                f"Space-to-channel makes {4 * in_channels} channels of {in_channels}, which cannot be averaged to "
                f"{out_channels}: choose widths of which each divides 4 times its neighbour."
            )
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.pad(x, (0, 1, 0, 1)))  #                                   (B, out_channels, H/2, W/2)
        out: Tensor = h + average_channels(F.pixel_unshuffle(x, 2), h.shape[1])  # likewise, of (B, 4 C, H/2, W/2)
        return out


class ResidualUpsample(nn.Module):
    """Doubles H and W: a convolution plus a shortcut without parameters, both to 4 * out_channels, then unfolded.

    The shortcut repeats each channel 4 * out_channels / in_channels times. Behind it, the shortcut of the
    `ResidualDownsample` that leads back is the identity (DC-AE, arXiv 2410.10733, section 3.2).

    Args:
        in_channels: Channels in, a divisor of 4 * out_channels.
        out_channels: Channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if 4 * out_channels % in_channels:
            raise ValueError(
                f"Channel-to-space makes {out_channels} channels of {4 * out_channels}, which {in_channels} cannot be "
                "repeated to: choose widths of which each divides 4 times its neighbour."
            )
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv(x) + repeat_channels(x, self.conv.out_channels)  # (B, 4 out_channels, H, W)
        return F.pixel_shuffle(patches, 2)  #                                    (B, out_channels, 2H, 2W)


def average_channels(x: Tensor, channels: int) -> Tensor:
    """(B, C, H, W) to (B, channels, H, W): means of C / channels neighbouring channels."""
    return reduce(x, "b (c group) h w -> b c h w", "mean", c=channels)


def repeat_channels(x: Tensor, channels: int) -> Tensor:
    """(B, C, H, W) to (B, channels, H, W): each channel channels / C times, side by side."""
    return repeat(x, "b c h w -> b (c copies) h w", copies=channels // x.shape[1])
