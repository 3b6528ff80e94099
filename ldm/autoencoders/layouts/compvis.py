"""The weights of first stages as CompVis' latent diffusion and taming transformers name them."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.layouts.parts import Words, describe, norm_groups, tensor_names, unnamed, with_quant_convs
from ldm.errors import UserError
from ldm.nn.layout import Layout, Names

PREFIX = "first_stage_model."  # of the autoencoder in a file that holds the whole model
LEFT_OUT = ("loss.", "model_ema.")  # discriminator, LPIPS and log-variance; averages under names without dots
GROUPS = 32  # of every norm of the published code
WORDS = Words(
    down="down.{level}",
    up="up.{level}",
    block="block.{index}",
    attention="attn.{index}",
    downsample="downsample",
    upsample="upsample",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    shortcut="nin_shortcut",
    norm="norm",
    qkv=("q", "k", "v"),
    out="proj_out",
    norm_out="norm_out",
)


class CompVis(Layout[Autoencoder]):
    """`encoder.down.0.block.0.conv1.weight` and so on, alone or within the file of a whole model."""

    title = "CompVis' first stage"

    def matches(self, keys: Collection[str]) -> bool:
        needed = {"encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight"}
        return any({f"{prefix}{key}" for key in needed} <= set(keys) for prefix in ("", PREFIX))

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        within = {key.removeprefix(PREFIX): tensor for key, tensor in weights.items() if key.startswith(PREFIX)}
        kept = {key: tensor for key, tensor in (within or weights).items() if not key.startswith(LEFT_OUT)}
        return with_quant_convs(kept)

    def names(self, net: Autoencoder) -> Names:
        names = tensor_names(net, WORDS, self.title)
        if norm_groups(net) != {GROUPS}:
            raise UserError(
                f"All norms of {self.title} have {GROUPS} groups, and this autoencoder's {sorted(norm_groups(net))}: "
                "only an autoencoder whose widths are multiples of 32, from 128 on, fits it."
            )
        return names

    def unnamed(self, net: Autoencoder) -> Collection[str]:
        return unnamed(net)

    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return describe(self.own(weights), WORDS)
