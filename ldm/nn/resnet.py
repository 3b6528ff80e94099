"""The convolutional residual block of autoencoders, and the group normalisation it stands on."""

import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, eps: float = 1e-6, groups: int | None = None) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or fewer for narrow layers, or with the `groups` asked for.

    Left out, the number of groups is the largest divisor of `channels` that is at most 32 and leaves at least 4
    channels in a group: 32 for 128, 256 and 512 channels, as in the published autoencoders. With one channel
    per group, a narrow network would lose each channel's mean over the image (and all of a 1x1 map).
    """
    if groups is not None:
        if groups < 1 or channels % groups:
            raise ValueError(f"A norm with {groups} groups does not divide {channels} channels: choose a divisor.")
        return nn.GroupNorm(groups, channels, eps=eps)
    most = max(1, min(32, channels // 4))
    fitting = max(divisor for divisor in range(1, most + 1) if channels % divisor == 0)
    return nn.GroupNorm(fitting, channels, eps=eps)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), 3x3; a 1x1 convolution on x where the width changes.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        dropout: Probability of dropping an activation before the second convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same_width = in_channels == out_channels
        self.shortcut = nn.Identity() if same_width else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  #                    (B, out_channels, H, W)
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))  #      (B, out_channels, H, W)
        out: Tensor = self.shortcut(x) + h
        return out
