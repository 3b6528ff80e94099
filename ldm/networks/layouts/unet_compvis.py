"""The weights of a U-Net as CompVis' latent diffusion and Stable Diffusion name them: one running number a place."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from ldm.errors import UserError
from ldm.networks.base import Network
from ldm.networks.layouts.unet_names import (
    block_names,
    channels_told,
    level_names,
    require_unet,
    sizes,
    transformers_told,
)
from ldm.networks.unet import UNet
from ldm.networks.unet_parts import Residual
from ldm.nn.layout import Layout, Names, named_tensors

PREFIX = "model.diffusion_model."  # of the U-Net in a file that holds the whole model
GROUPS = 32  # of every norm of the published code
BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "modulation": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}


class UNetCompVis(Layout[Network]):
    """`input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight` and so on, alone or within a whole model's file."""

    title = "the CompVis U-Net"

    def matches(self, keys: Collection[str]) -> bool:
        return any(
            {f"{prefix}input_blocks.0.0.weight", f"{prefix}time_embed.0.weight"} <= set(keys) for prefix in ("", PREFIX)
        )

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        within = {key.removeprefix(PREFIX): tensor for key, tensor in weights.items() if key.startswith(PREFIX)}
        return within or dict(weights)

    def names(self, net: Network) -> Names:
        net = require_unet(net, self.title)
        if any(isinstance(module, nn.GroupNorm) and module.num_groups != GROUPS for module in net.modules()):
            raise UserError(f"All norms of {self.title} have {GROUPS} groups: set norm_groups of the net to {GROUPS}.")
        modules = {
            "conv_in": "input_blocks.0.0",
            "noise_embed.enter": "time_embed.0",
            "noise_embed.leave": "time_embed.2",
            "head.norm": "out.0",
            "head.conv": "out.2",
        }
        middle = ["middle_block.0", "middle_block.2"]
        modules |= down_names(net) | up_names(net)
        modules |= level_names("middle", net.middle, middle, ["middle_block.1"], BLOCK)
        return named_tensors(net.state_dict(), modules)

    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        own = self.own(weights)
        conv = any(key.endswith(".op.weight") for key in own)
        num_levels, num_res_blocks = structure(own, "conv.weight" if conv else "in_layers.0.weight")
        channels, entering = sizes(own, "input_blocks.0.0.weight")[:2]
        firsts = [f"input_blocks.{1 + level * (num_res_blocks + 1)}" for level in range(num_levels)]
        widths = [sizes(own, f"{first}.0.out_layers.3.weight")[0] for first in firsts]
        attention_levels = [level for level, first in enumerate(firsts) if f"{first}.1.norm.weight" in own]
        places = {**{level: f"{firsts[level]}.1" for level in attention_levels}, num_levels - 1: "middle_block.1"}
        depths = [count_blocks(own, places.get(level)) for level in range(num_levels)]
        return {
            **channels_told(entering, sizes(own, "out.2.weight")[0]),
            "channels": channels,
            "channel_multipliers": [width // channels for width in widths],
            "num_res_blocks": num_res_blocks,
            "attention_levels": attention_levels,
            "context_width": sizes(own, "middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1],
            "block": Residual(sizes(own, "middle_block.0.emb_layers.1.weight")[0] == 2 * widths[-1]),
            "attention": transformers_told(depths, len(sizes(own, "middle_block.1.proj_in.weight")) == 2, channels),
            "resample": "conv" if conv or num_levels == 1 else "residual",
            "norm_groups": GROUPS,
        }


def structure(weights: Mapping[str, Tensor], end: str) -> tuple[int, int]:
    """How many levels, and blocks of each on the way down. `end` ends the key of what ends a level on the way up."""
    places = [key.split(".", 3) for key in weights if key.startswith("output_blocks.")]
    num_levels = 1 + sum(module != "0" and tensor == end for _, _, module, tensor in places)
    return num_levels, len({place for _, place, _, _ in places}) // num_levels - 1


def down_names(net: UNet) -> dict[str, str]:
    """Places are counted from the first convolution, 0; a change of resolution is a place of its own."""
    named: dict[str, str] = {}
    place = 1
    for i, level in enumerate(net.down):
        theirs = [f"input_blocks.{place + j}" for j in range(net.num_res_blocks)]
        blocks, attentions = [f"{their}.0" for their in theirs], [f"{their}.1" for their in theirs]
        named |= level_names(f"down.{i}", level, blocks, attentions, BLOCK)
        place += net.num_res_blocks
        if level.resampler is not None:
            named |= resampler_names(net, f"down.{i}.resampler", f"input_blocks.{place}.0", "op")
            place += 1
    return named


def up_names(net: UNet) -> dict[str, str]:
    """A change of resolution comes last in the place of the block before it."""
    named: dict[str, str] = {}
    size = net.num_res_blocks + 1
    for i, level in enumerate(net.up):
        theirs = [f"output_blocks.{i * size + j}" for j in range(size)]
        blocks, attentions = [f"{their}.0" for their in theirs], [f"{their}.1" for their in theirs]
        named |= level_names(f"up.{i}", level, blocks, attentions, BLOCK)
        if level.resampler is not None:
            last = 2 if net.has_attention(len(net.up) - 1 - i) else 1
            named |= resampler_names(net, f"up.{i}.resampler", f"{theirs[-1]}.{last}", "conv")
    return named


def resampler_names(net: UNet, ours: str, theirs: str, conv: str) -> dict[str, str]:
    if net.resample == "residual":
        return block_names(ours, theirs, BLOCK)
    return {f"{ours}.layer.conv": f"{theirs}.{conv}"}


def count_blocks(weights: Mapping[str, Tensor], place: str | None) -> int:
    """Transformer blocks of a place; 1 where it has no transformer."""
    start = f"{place}.transformer_blocks."
    return max(1, len({key.removeprefix(start).split(".")[0] for key in weights if key.startswith(start)}))
