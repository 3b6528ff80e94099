"""The weights of a U-Net as diffusers' UNet2DConditionModel names them."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from ldm.errors import UserError
from ldm.networks.base import Network
from ldm.networks.layouts.unet_names import (
    channels_told,
    level_names,
    require_unet,
    sizes,
    transformers_told,
)
from ldm.networks.unet_parts import Residual
from ldm.networks.unet_parts.levels import Heard
from ldm.nn.layout import Layout, Names, named_tensors

BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "modulation": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}


class UNetDiffusers(Layout[Network]):
    """`down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight` and so on."""

    title = "diffusers' UNet2DConditionModel"

    def matches(self, keys: Collection[str]) -> bool:
        return {"conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight"} <= set(keys)

    def names(self, net: Network) -> Names:
        net = require_unet(net, self.title)
        if net.resample != "conv":
            raise UserError(f'{self.title} does not resample by residual blocks: use a net with resample "conv".')
        modules = {
            "conv_in": "conv_in",
            "noise_embed.enter": "time_embedding.linear_1",
            "noise_embed.leave": "time_embedding.linear_2",
            "head.norm": "conv_norm_out",
            "head.conv": "conv_out",
        }
        for i, level in enumerate(net.down):
            modules |= named_level(f"down.{i}", f"down_blocks.{i}", level)
            modules[f"down.{i}.resampler.layer.conv"] = f"down_blocks.{i}.downsamplers.0.conv"
        for i, level in enumerate(net.up):
            modules |= named_level(f"up.{i}", f"up_blocks.{i}", level)
            modules[f"up.{i}.resampler.layer.conv"] = f"up_blocks.{i}.upsamplers.0.conv"
        modules |= named_level("middle", "mid_block", net.middle)
        return named_tensors(net.state_dict(), modules)

    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        num_levels = count(weights, "down_blocks.")
        channels, entering = sizes(weights, "conv_in.weight")[:2]
        widths = [sizes(weights, f"down_blocks.{i}.resnets.0.conv2.weight")[0] for i in range(num_levels)]
        attention_levels = [i for i in range(num_levels) if f"down_blocks.{i}.attentions.0.norm.weight" in weights]
        middle = "mid_block.attentions.0"
        places = {**{i: f"down_blocks.{i}.attentions.0" for i in attention_levels}, num_levels - 1: middle}
        depths = [max(1, count(weights, f"{places.get(i)}.transformer_blocks.")) for i in range(num_levels)]
        return {
            **channels_told(entering, sizes(weights, "conv_out.weight")[0]),
            "channels": channels,
            "channel_multipliers": [width // channels for width in widths],
            "num_res_blocks": count(weights, "down_blocks.0.resnets."),
            "attention_levels": attention_levels,
            "context_width": sizes(weights, f"{middle}.transformer_blocks.0.attn2.to_k.weight")[1],
            "block": Residual(sizes(weights, "mid_block.resnets.0.time_emb_proj.weight")[0] == 2 * widths[-1]),
            "attention": transformers_told(depths, len(sizes(weights, f"{middle}.proj_in.weight")) == 2, channels),
        }


def named_level(ours: str, theirs: str, level: nn.Module) -> dict[str, str]:
    assert isinstance(level, Heard)
    blocks = [f"{theirs}.resnets.{i}" for i in range(len(level.blocks))]
    attentions = [f"{theirs}.attentions.{i}" for i in range(len(level.attentions))]
    return level_names(ours, level, blocks, attentions, BLOCK)


def count(weights: Mapping[str, Tensor], start: str) -> int:
    """How many numbers follow `start` in the keys."""
    return len({key.removeprefix(start).split(".")[0] for key in weights if key.startswith(start)})
