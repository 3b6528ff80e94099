"""The layout of the official DiT, https://github.com/facebookresearch/DiT, which SiT and others took over."""

from collections.abc import Collection, Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from ldm.errors import UserError
from ldm.networks.base import Network
from ldm.networks.blocks import AdaLNZero
from ldm.networks.dit import DiT
from ldm.networks.positions import SinCos
from ldm.nn.layout import Layout, Names

LABELS = "y_embedder.embedding_table.weight"  # our conditioner's: `embedding.weight` of the embedder Label
PLACES = "pos_embed"  # fixed, but among the weights there
STEM = {
    "patch_embed": "x_embedder.proj",
    "noise_embed.enter": "t_embedder.mlp.0",
    "noise_embed.leave": "t_embedder.mlp.2",
    "head.modulation": "final_layer.adaLN_modulation.1",
    "head.linear": "final_layer.linear",
}
BLOCK = {
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
    "modulation": "adaLN_modulation.1",
}
HEADS_OF_XL = 16


class OfficialDiT(Layout[Network]):
    """The network's weights by the official names. The label table, `LABELS`, is a part of its own."""

    title = "the official DiT"

    def matches(self, keys: Collection[str]) -> bool:
        return {"x_embedder.proj.weight", "t_embedder.mlp.0.weight", "final_layer.linear.weight"} <= set(keys)

    def names(self, net: Network) -> Names:
        if not isinstance(net, DiT) or not isinstance(net.block, AdaLNZero) or not isinstance(net.positions, SinCos):
            raise UserError(f"{self.title} has AdaLNZero blocks and SinCos positions, and the network has not.")
        modules = dict(STEM)
        for i in range(net.depth):
            modules |= {f"blocks.{i}.{our}": f"blocks.{i}.{their}" for our, their in BLOCK.items()}
        names = {f"{our}.{kind}": f"{their}.{kind}" for our, their in modules.items() for kind in ("weight", "bias")}
        further = net.state_dict().keys() - names.keys()
        if further or net.rope or net.rms_norm:
            told = ", ".join(sorted(further)[:3]) or "rotary positions or RMS norms"
            raise UserError(f"{self.title} has no names for {told}: build the DiT without its switches.")
        return names

    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """As far as shapes tell: heads are 64 wide in S, B and L, and there are 16 in XL, as the paper has them."""
        width, in_channels, patch_size, _ = weights["x_embedder.proj.weight"].shape
        out_channels = len(weights["final_layer.linear.bias"]) // patch_size**2
        depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
        return {
            "input_size": isqrt(weights[PLACES].shape[-2]) * patch_size,
            "in_channels": in_channels,
            "patch_size": patch_size,
            "width": width,
            "depth": depth,
            "num_heads": HEADS_OF_XL if width == 1152 else max(1, width // 64),
            "mlp_ratio": len(weights["blocks.0.mlp.fc1.bias"]) / width,
            "learned_variance": out_channels == 2 * in_channels,
        }

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in weights.items() if key not in (LABELS, PLACES)}

    def renamed(self, weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        ours = super().renamed(weights, net)
        if PLACES in weights and isinstance(net, DiT):
            given, built = weights[PLACES].shape[-2], net.pos_embed.shape[0]
            if given != built:
                size = isqrt(given) * net.patch_size
                raise UserError(
                    f"The weights in the layout of {self.title} were trained on {given} patches and the network has "
                    f"{built}: set its input_size to {size}."
                )
        return ours

    def written(self, weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        theirs = super().written(weights, net)
        assert isinstance(net, DiT)
        return {**theirs, PLACES: net.pos_embed[None]}
