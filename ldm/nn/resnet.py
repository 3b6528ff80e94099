"""The convolutional residual block of autoencoders, and the group normalisation it stands on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics are float32's and whose output has the input's memory format, on every device.

    PyTorch's accumulates in float32 for half precision too. Of channels_last maps, however, its CPU kernel takes the
    variance as E[x^2] - E[x]^2, which loses digits where the mean is large (one in ten at a mean of 30), and its CUDA
    kernel returns a contiguous map.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        if x.is_cpu:
            # The norm of x - m is that of x, gradient included, whatever m of a group; near 0 no digits are lost.
            x32 = x.to(torch.promote_types(x.dtype, torch.float32))
            weight, bias = self.weight.to(x32.dtype), self.bias.to(x32.dtype)
            centred = x32 - self._group_means(x32.detach())
            y = F.group_norm(centred, self.num_groups, weight, bias, self.eps).to(x.dtype)
        else:
            y = super().forward(x)
        return y.contiguous(memory_format=torch.channels_last)

    def _group_means(self, x: Tensor) -> Tensor:
        """(B, C, 1, 1): at each channel the mean of its group."""
        means = x.mean((2, 3)).unflatten(1, (self.num_groups, -1))  # (B, groups, C / groups)
        return means.mean(2, keepdim=True).expand_as(means).flatten(1)[:, :, None, None]


def group_norm(channels: int, eps: float = 1e-6, groups: int | None = None) -> GroupNorm:
    """GroupNorm with 32 groups, or fewer for narrow layers, or with the `groups` asked for.

    Left out, the number of groups is the largest divisor of `channels` that is at most 32 and leaves at least 4
    channels in a group: 32 for 128, 256 and 512 channels, as in the published autoencoders. With one channel
    per group, a narrow network would lose each channel's mean over the image (and all of a 1x1 map).
    """
    if groups is not None:
        if groups < 1 or channels % groups:
            raise ValueError(f"A norm with {groups} groups does not divide {channels} channels: choose a divisor.")
        return GroupNorm(groups, channels, eps=eps)
    most = max(1, min(32, channels // 4))
    fitting = max(divisor for divisor in range(1, most + 1) if channels % divisor == 0)
    return GroupNorm(fitting, channels, eps=eps)


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
