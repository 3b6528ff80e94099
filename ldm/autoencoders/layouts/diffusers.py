"""The weights of diffusers' AutoencoderKL and VQModel."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.layouts.parts import Words, describe, norm_groups, tensor_names, unnamed, with_quant_convs
from ldm.errors import UserError
from ldm.nn.layout import Layout, Names

WORDS = Words(
    down="down_blocks.{place}",
    up="up_blocks.{place}",
    block="resnets.{index}",
    attention="attentions.{index}",
    downsample="downsamplers.0",
    upsample="upsamplers.0",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    shortcut="conv_shortcut",
    norm="group_norm",
    qkv=("to_q", "to_k", "to_v"),
    out="to_out.0",
    norm_out="conv_norm_out",
)
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of files before 2023


class Diffusers(Layout[Autoencoder]):
    """`encoder.down_blocks.0.resnets.0.conv1.weight` and so on; attention by linear layers, of older names too."""

    title = "diffusers' AutoencoderKL and VQModel"

    def matches(self, keys: Collection[str]) -> bool:
        return {"encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"} <= set(keys)

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return with_quant_convs({newer(key): tensor for key, tensor in weights.items()})

    def names(self, net: Autoencoder) -> Names:
        names = tensor_names(net, WORDS, self.title)
        if len(norm_groups(net)) > 1:
            raise UserError(
                f"All norms of {self.title} have the same number of groups, and this autoencoder's have "
                f"{sorted(norm_groups(net))}: only one whose widths are multiples of 32, from 128 on, surely fits it."
            )
        return names

    def unnamed(self, net: Autoencoder) -> Collection[str]:
        return unnamed(net)

    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return describe(self.own(weights), WORDS)

    def written(self, weights: Mapping[str, Tensor], net: Autoencoder) -> dict[str, Tensor]:
        theirs = super().written(weights, net)
        return {key: tensor.flatten(1) if is_linear(key) else tensor for key, tensor in theirs.items()}


def newer(key: str) -> str:
    """The name that newer files have for the same tensor."""
    module, _, tensor = key.rpartition(".")
    parent, _, last = module.rpartition(".")
    return f"{parent}.{OLDER[last]}.{tensor}" if last in OLDER and ".attentions." in key else key


def is_linear(key: str) -> bool:
    return ".attentions." in key and ".to_" in key and key.endswith(".weight")
