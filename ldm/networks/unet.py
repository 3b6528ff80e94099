"""The U-Net of latent diffusion. Rombach et al. 2021 (arXiv:2112.10752), after ADM (arXiv:2105.05233)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.base import Conditioning, Network
from ldm.networks.blocks.hearing import add_vector, attended
from ldm.networks.fits import check_concat, check_shape, check_tokens, check_vector
from ldm.networks.unet_parts import Residual, Transformers, UNetAttention, UNetBlock
from ldm.networks.unet_parts.levels import Down, Middle, Resampling, Up
from ldm.nn.embeddings import NoiseEmbedding
from ldm.nn.resample import CentredDownsample, Upsample
from ldm.nn.resnet import group_norm


class UNet(Network):
    """Blocks at falling and rising resolution, joined level by level, with attention where asked and in the middle.

    The conditioning's vector is added to the embedding of the noise level, which is 4 * channels wide; its tokens are
    attended to. Stable Diffusion 1.5 has channels 320, context_width 768 and all else as it is here. x_t of any size
    that the levels can halve is taken. It starts by giving zeros.

    Args:
        input_size: height and width of x_t: one number if they are equal, else (height, width).
        in_channels: channels of x_t; the autoencoder's `latent_channels`.
        channels: width of the first level.
        channel_multipliers: width of each level from the finest, in units of `channels`; each level after the first
            halves the map.
        num_res_blocks: blocks of a level on the way down; there is one more on the way up.
        attention_levels: levels whose blocks are followed by attention, 0 the finest; the middle always has it.
        context_width: channels of the tokens (of text, say) that are attended to; left out, it hears none.
        block: the kind of block, of `ldm.networks.unet_parts`; by default Residual.
        attention: the kind of attention, of `ldm.networks.unet_parts`; by default Transformers with 8 heads.
        resample: halve and double the map by a convolution, or by a residual block (as ADM).
        learned_variance: give twice the channels, the second half for a learned variance.
        checkpointing: recompute each block in the backward pass: less memory, about a third more time.
        concat_channels: channels of an image that the conditioner gives beside x_t.
        self_conditioning: take the estimate of x0 from the step before beside x_t (Chen et al. 2022, arXiv:2208.04202).
        norm_groups: groups of the norms; left out 32, or fewer in narrow layers, so that each has at least 4 channels.
    """

    def __init__(
        self,
        input_size: int | tuple[int, int] = 64,
        in_channels: int = 4,
        channels: int = 320,
        channel_multipliers: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_levels: Sequence[int] = (0, 1, 2),
        context_width: int | None = None,
        block: UNetBlock | None = None,
        attention: UNetAttention | None = None,
        resample: Literal["conv", "residual"] = "conv",
        learned_variance: bool = False,
        checkpointing: bool = False,
        concat_channels: int = 0,
        self_conditioning: bool = False,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = (input_size, input_size) if isinstance(input_size, int) else input_size
        self.channels, self.channel_multipliers = channels, tuple(channel_multipliers)
        self.num_res_blocks, self.attention_levels = num_res_blocks, tuple(attention_levels)
        self.in_channels, self.concat_channels, self.context_width = in_channels, concat_channels, context_width
        self.block, self.attention = block or Residual(), attention or Transformers()
        self.resample, self.norm_groups = resample, norm_groups
        self.learned_variance, self.checkpointing = learned_variance, checkpointing
        self.self_conditioning = self_conditioning
        self.sample_shape = (in_channels, *self.input_size)
        self.out_channels = 2 * in_channels if learned_variance else in_channels
        self.width = 4 * channels
        self.check_structure()

        beside = concat_channels + (in_channels if self_conditioning else 0)
        self.conv_in = nn.Conv2d(in_channels + beside, channels, 3, padding=1)
        self.noise_embed = NoiseEmbedding(self.width, num_frequencies=channels)
        for linear in (self.noise_embed.enter, self.noise_embed.leave):
            linear.reset_parameters()  # as published U-Nets have it: weights as small as DiT's learn slowly if narrow
        widths = [channels * multiplier for multiplier in self.channel_multipliers]
        waiting = [channels]  # channels of what waits for the way up
        self.down = nn.ModuleList(self.down_level(level, widths, waiting) for level in range(len(widths)))
        self.middle = self.middle_level(widths[-1])
        self.up = nn.ModuleList(self.up_level(level, widths, waiting) for level in reversed(range(len(widths))))
        self.head = Head(channels, self.out_channels, norm_groups)

    def check_structure(self) -> None:
        """Raise a ValueError that names the option which cannot be built, and what to choose."""
        num_levels = len(self.channel_multipliers)
        if num_levels < 1 or min(self.channel_multipliers) < 1:
            raise ValueError(
                f"channel_multipliers={list(self.channel_multipliers)}: give one of at least 1 for each level."
            )
        if self.num_res_blocks < 1:
            raise ValueError(f"num_res_blocks={self.num_res_blocks}: choose at least 1.")
        if self.channels < 2 or self.channels % 2:
            raise ValueError(
                f"channels={self.channels}: choose an even number, half of it for cosines, half for sines."
            )
        strange = [level for level in self.attention_levels if level not in range(num_levels)]
        if strange:
            raise ValueError(f"attention_levels names level {strange[0]}: choose from 0 to {num_levels - 1}.")
        self.check_grid(*self.input_size)
        self.attention.check(num_levels)
        if self.context_width is not None and not self.attention.hears_tokens:
            raise ValueError(
                f"{type(self.attention).__name__} attention hears no tokens, and context_width is "
                f"{self.context_width}: choose Transformers, or leave context_width out."
            )

    def check_grid(self, height: int, breadth: int) -> None:
        step = 2 ** (len(self.channel_multipliers) - 1)
        if height < 1 or height % step or breadth % step:
            raise ValueError(
                f"{len(self.channel_multipliers)} levels cannot halve {height} x {breadth} evenly: choose multiples of "
                f"{step}, or fewer channel_multipliers."
            )

    def down_level(self, level: int, widths: list[int], waiting: list[int]) -> Down:
        blocks, width = [], widths[level]
        for _ in range(self.num_res_blocks):
            blocks.append(self.block.block(waiting[-1], width, self.width, self.norm_groups))
            waiting.append(width)
        last = level == len(widths) - 1
        resampler = None if last else self.resampler(width, "down")
        if not last:
            waiting.append(width)
        return Down(blocks, self.attentions(level, len(blocks)), self.checkpointing, resampler)

    def middle_level(self, width: int) -> Middle:
        blocks = [self.block.block(width, width, self.width, self.norm_groups) for _ in range(2)]
        level = len(self.channel_multipliers) - 1
        attention = self.attention.attention(width, level, True, self.context_width, self.norm_groups)
        return Middle(blocks, [attention], self.checkpointing)

    def up_level(self, level: int, widths: list[int], waiting: list[int]) -> Up:
        blocks, width = [], widths[level]
        below = widths[min(level + 1, len(widths) - 1)]
        for _ in range(self.num_res_blocks + 1):
            blocks.append(self.block.block(below + waiting.pop(), width, self.width, self.norm_groups))
            below = width
        resampler = self.resampler(width, "up") if level else None
        return Up(blocks, self.attentions(level, len(blocks)), self.checkpointing, resampler)

    def has_attention(self, level: int) -> bool:
        return level in self.attention_levels

    def attentions(self, level: int, count: int) -> list[nn.Module]:
        if not self.has_attention(level):
            return []
        width, lowest = self.channels * self.channel_multipliers[level], level == len(self.channel_multipliers) - 1
        settings = (width, level, lowest, self.context_width, self.norm_groups)
        return [self.attention.attention(*settings) for _ in range(count)]

    def resampler(self, width: int, way: Literal["down", "up"]) -> nn.Module:
        if self.resample == "residual":
            return self.block.resampler(width, self.width, self.norm_groups, way)
        return Resampling(CentredDownsample(width) if way == "down" else Upsample(width))

    def forward(self, x_t: Tensor, noise_condition: Tensor, cond: Conditioning) -> Tensor:
        self.check_grid(*x_t.shape[2:])
        assert self.context_width is None or cond.tokens is not None  # `check` asks for them
        embedding = add_vector(self.noise_embed(noise_condition), cond)  # (B, 4 * channels)
        context = attended(nn.Identity(), cond)
        heard = (embedding, context.tokens, context.mask)
        h = self.conv_in(self.beside(x_t, cond))  # (B, channels, H, W)
        kept = [h]
        for down in self.down:
            h, fresh = down(h, *heard)
            kept += fresh
        h = self.middle(h, *heard)
        for up in self.up:
            h = up(h, *heard, kept)
        return self.head(h)  # (B, out_channels, H, W)

    def beside(self, x_t: Tensor, cond: Conditioning) -> Tensor:
        """x_t, the estimate of x0 and the image of the conditioning, as far as this network takes them."""
        parts = [x_t]
        if self.self_conditioning:
            parts.append(torch.zeros_like(x_t) if cond.estimate is None else cond.estimate.to(x_t.dtype))
        if cond.concat is not None:
            parts.append(cond.concat.to(x_t.dtype))
        return torch.cat(parts, dim=1) if len(parts) > 1 else x_t

    def check(self, shape: tuple[int, int, int], cond: Conditioning) -> None:
        check_shape(self.sample_shape, shape)
        check_vector(self.width, cond)
        check_tokens(self.context_width, cond, "UNet", of_block=False)
        check_concat(self.concat_channels, cond, self.sample_shape)


class Head(nn.Module):
    """What comes of the finest level, normed and brought to the channels of the answer; zero at the start."""

    def __init__(self, channels: int, out_channels: int, groups: int | None) -> None:
        super().__init__()
        self.norm = group_norm(channels, eps=1e-5, groups=groups)
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(silu(self.norm(h)))
