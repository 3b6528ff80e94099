"""The convolutional residual block of diffusion U-Nets, told the noise level."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.nn.resnet import group_norm
from ldm.nn.standard_conv import StandardConv2d


class ModulatedResBlock(nn.Module):
    """x + conv(silu(modulated norm(conv(silu(norm(x)))))), 3x3; a 1x1 convolution on x where the width changes.

    Dhariwal & Nichol 2021 (arXiv:2105.05233). It starts as the shortcut alone, except with standardised weights, which
    have no size that could be zero.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        embedding_width: Channels of the embedding of the noise level.
        scale_shift: The embedding scales and shifts the second norm (adaptive group normalisation), where otherwise it
            is added before it.
        dropout: Probability of dropping an activation before the second convolution.
        groups: Groups of the norms, as of `group_norm`.
        standardised: Weight-standardised convolutions.
        resample: Halve or double height and width, of x too, after the first norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        scale_shift: bool = False,
        dropout: float = 0.0,
        groups: int | None = None,
        standardised: bool = False,
        resample: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        conv = StandardConv2d if standardised else nn.Conv2d
        self.scale_shift, self.resample = scale_shift, resample
        self.norm1 = group_norm(in_channels, eps=1e-5, groups=groups)
        self.conv1 = conv(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding_width, 2 * out_channels if scale_shift else out_channels)
        self.norm2 = group_norm(out_channels, eps=1e-5, groups=groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1)
        same_width = in_channels == out_channels
        self.shortcut = nn.Identity() if same_width else nn.Conv2d(in_channels, out_channels, 1)
        if not standardised:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, in_channels, H, W), embedding (B, embedding_width)."""
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = resampled(h, self.resample), resampled(x, self.resample)
        h = self.conv1(h)  #                                                       (B, out_channels, H', W')
        told = self.modulation(F.silu(embedding))[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + told)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(h)))


def resampled(x: Tensor, way: Literal["down", "up"]) -> Tensor:
    """(B, C, H, W) -> half the height and width by the mean of 2x2 squares, or twice them by repetition."""
    return F.avg_pool2d(x, 2) if way == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")
