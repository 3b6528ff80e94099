"""Convolutional encoder and decoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, appendix G).

Level i works at 1/2**i of the image's resolution; level 0 is the outermost.
"""

from collections.abc import Collection, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.nn.precision import without_autocast
from ldm.nn.resample import (
    Downsample,
    ResidualDownsample,
    ResidualUpsample,
    Upsample,
    average_channels,
    repeat_channels,
)
from ldm.nn.resnet import ResBlock, group_norm
from ldm.nn.spatial_attention import SpatialAttention

Resample = Literal["conv", "space_to_channel"]


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if asked, then a change of resolution.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        num_blocks: Number of residual blocks.
        attention: Whether attention follows each block.
        resample: What ends the level: `Downsample`, `Upsample`, or `nn.Identity` at the last level.
        dropout: Dropout of the residual blocks.
        checkpointing: Whether to recompute the blocks' activations in the backward pass, to save memory.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        attention: bool,
        resample: nn.Module,
        dropout: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * (num_blocks - 1)
        self.blocks = nn.ModuleList(ResBlock(width, out_channels, dropout) for width in widths)
        self.attentions = nn.ModuleList(SpatialAttention(out_channels) if attention else nn.Identity() for _ in widths)
        self.resample = resample
        self.checkpointing = checkpointing

    def forward(self, h: Tensor) -> Tensor:
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, use_reentrant=False)
            else:
                h = block(h)
            h = attention(h)
        resampled: Tensor = self.resample(h)
        return resampled


def _middle(channels: int, dropout: float, attention: bool) -> nn.Sequential:
    return nn.Sequential(
        ResBlock(channels, channels, dropout),
        SpatialAttention(channels) if attention else nn.Identity(),
        ResBlock(channels, channels, dropout),
    )


class Encoder(nn.Module):
    """Images (B, in_channels, H, W) to features (B, out_channels, H/f, W/f), f = 2**(number of levels - 1).

    Args:
        in_channels: Channels of the images.
        out_channels: Channels of the features.
        widths: Channels of each level, level 0 first.
        num_res_blocks: Residual blocks per level.
        attention_levels: Levels with attention.
        dropout: Dropout of the residual blocks.
        checkpointing: Whether to recompute activations in the backward pass.
        middle_attention: Whether attention stands between the two residual blocks of the middle.
        resample: "conv"; or "space_to_channel", where shortcuts without parameters, that change the width too, run
            beside the changes of resolution and, where one width divides the other, beside the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        num_res_blocks: int,
        attention_levels: Collection[int],
        dropout: float,
        checkpointing: bool,
        middle_attention: bool = True,
        resample: Resample = "conv",
    ) -> None:
        super().__init__()
        residual = resample == "space_to_channel"
        self.shortcut_out = residual and widths[-1] % out_channels == 0
        width = widths[0]
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        for level, wide in enumerate(widths):
            after: nn.Module = nn.Identity()
            following = wide
            if level < len(widths) - 1:
                following = widths[level + 1] if residual else wide
                after = ResidualDownsample(wide, following) if residual else Downsample(wide)
            attention = level in attention_levels
            self.down.append(Level(width, wide, num_res_blocks, attention, after, dropout, checkpointing))
            width = following
        self.mid = _middle(widths[-1], dropout, middle_attention)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        h = self.conv_in(images)  #                           (B, widths[0], H, W)
        for level in self.down:
            h = level(h)  #                                   (B, widths[i], H/2**(i+1), W/2**(i+1))
        h = self.mid(h)  #                                    (B, widths[-1], H/f, W/f)
        features: Tensor = self.conv_out(F.silu(self.norm_out(h)))  # (B, out_channels, H/f, W/f)
        return features + average_channels(h, features.shape[1]) if self.shortcut_out else features


class Decoder(nn.Module):
    """Features (B, in_channels, h, w) to images (B, out_channels, f*h, f*w), f = 2**(number of levels - 1).

    `up` stands in the order in which it runs: the coarsest level first. Each level has one residual block
    more than the encoder's. The last convolution runs in the precision of its weights under autocast too, so that
    images are not rounded to bfloat16.

    Args:
        in_channels: Channels of the features.
        out_channels: Channels of the images.
        widths: Channels of each level, level 0 (the images' resolution) first.
        num_res_blocks: Residual blocks per level of the matching encoder.
        attention_levels: Levels with attention.
        dropout: Dropout of the residual blocks.
        checkpointing: Whether to recompute activations in the backward pass.
        middle_attention: Whether attention stands between the two residual blocks of the middle.
        resample: "conv"; or "space_to_channel", where shortcuts without parameters, that change the width too, run
            beside the changes of resolution and, where one width divides the other, beside the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        num_res_blocks: int,
        attention_levels: Collection[int],
        dropout: float,
        checkpointing: bool,
        middle_attention: bool = True,
        resample: Resample = "conv",
    ) -> None:
        super().__init__()
        residual = resample == "space_to_channel"
        self.shortcut_in = residual and widths[-1] % in_channels == 0
        width = widths[-1]
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.mid = _middle(width, dropout, middle_attention)
        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            after: nn.Module = nn.Identity()
            following = wide
            if level > 0:
                following = widths[level - 1] if residual else wide
                after = ResidualUpsample(wide, following) if residual else Upsample(wide)
            attention = level in attention_levels
            self.up.append(Level(width, wide, num_res_blocks + 1, attention, after, dropout, checkpointing))
            width = following
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)  #                                (B, widths[-1], h, w)
        h = self.mid(h + repeat_channels(z, h.shape[1]) if self.shortcut_in else h)
        for level in self.up:
            h = level(h)  #                                   (B, widths[i], 2h, 2w), then 4h, 4w ...
        with without_autocast(h.device):
            h = h.to(self.conv_out.weight.dtype)
            images: Tensor = self.conv_out(F.silu(self.norm_out(h)))  # (B, out_channels, f*h, f*w)
        return images


def conv_pair(
    in_channels: int,
    encoder_out: int,
    decoder_in: int,
    channels: int,
    channel_multipliers: Sequence[int],
    num_res_blocks: int,
    attention_levels: Collection[int],
    dropout: float,
    checkpointing: bool,
    middle_attention: bool,
    resample: Resample = "conv",
) -> tuple[Encoder, Decoder, int]:
    """The encoder and the decoder that an autoencoder's arguments describe, and its pixels per latent position.

    Args:
        in_channels: Channels of the images.
        encoder_out: Channels that the encoder gives.
        decoder_in: Channels that the decoder takes.
        channels: Width at level 0, the images' resolution.
        channel_multipliers: Width of each level in units of `channels`.
        num_res_blocks: Residual blocks per level of the encoder.
        attention_levels: Levels with attention.
        dropout: Dropout of the residual blocks.
        checkpointing: Whether to recompute activations in the backward pass.
        middle_attention: Whether the middle has attention.
        resample: How levels change the resolution.

    Raises:
        ValueError: A number is below 1, a level of `attention_levels` does not exist, or the widths do not suit
            "space_to_channel".
    """
    levels = len(channel_multipliers)
    counts = (in_channels, encoder_out, decoder_in, channels, num_res_blocks, levels, *channel_multipliers)
    if min(counts) < 1:
        raise ValueError(
            "in_channels, latent_channels, channels, num_res_blocks and every one of channel_multipliers "
            "must be at least 1, and there must be at least one multiplier."
        )
    if not set(attention_levels) <= set(range(levels)):
        raise ValueError(
            f"attention_levels is {list(attention_levels)}, but channel_multipliers makes {levels} "
            f"level(s): give numbers from 0 (the images' resolution) to {levels - 1}."
        )
    if resample not in get_args(Resample):
        raise ValueError(f"resample is {resample!r}: choose one of {', '.join(get_args(Resample))}.")
    widths = [channels * multiplier for multiplier in channel_multipliers]
    network = (widths, num_res_blocks, attention_levels, dropout, checkpointing, middle_attention, resample)
    encoder = Encoder(in_channels, encoder_out, *network)
    decoder = Decoder(decoder_in, in_channels, *network)
    return encoder, decoder, 2 ** (levels - 1)
