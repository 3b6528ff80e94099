"""What the layouts of the latent diffusion U-Net share: the names inside a spatial transformer, and what none has."""

from collections.abc import Mapping

from torch import Tensor, nn

from ldm.errors import UserError
from ldm.networks.base import Network
from ldm.networks.unet import UNet
from ldm.networks.unet_parts import Residual, Transformers
from ldm.networks.unet_parts.levels import Heard
from ldm.nn.spatial_transformer import SpatialTransformer

TRANSFORMER = {"norm": "norm", "enter": "proj_in", "leave": "proj_out"}
TRANSFORMER_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "mlp.enter": "ff.net.0.proj",
    "mlp.leave": "ff.net.2",
    **{
        f"{ours}.{our}": f"{theirs}.{their}"
        for ours, theirs in (("self_attention", "attn1"), ("cross_attention", "attn2"))
        for our, their in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0"))
    },
}


def require_unet(net: Network, title: str) -> UNet:
    """`net` if it is a U-Net of parts that latent diffusion's has; else a UserError that names the part."""
    if not isinstance(net, UNet):
        raise UserError(f"{title} is a layout of UNet, and the network is a {type(net).__name__}: use a UNet.")
    if not isinstance(net.block, Residual) or net.block.standardised:
        raise UserError(f"{title} has no names for this net's block: use Residual without standardised convolutions.")
    if not isinstance(net.attention, Transformers) or net.context_width is None:
        raise UserError(
            f"{title} has no names for attention that hears no tokens: use a net with Transformers and a context_width."
        )
    return net


def transformer_names(ours: str, theirs: str, transformer: nn.Module) -> dict[str, str]:
    """Module by module of the spatial transformer that is called `ours` here and `theirs` there."""
    assert isinstance(transformer, SpatialTransformer)
    named = {f"{ours}.{our}": f"{theirs}.{their}" for our, their in TRANSFORMER.items()}
    for i in range(len(transformer.blocks)):
        for our, their in TRANSFORMER_BLOCK.items():
            named[f"{ours}.blocks.{i}.{our}"] = f"{theirs}.transformer_blocks.{i}.{their}"
    return named


def block_names(ours: str, theirs: str, inside: Mapping[str, str]) -> dict[str, str]:
    """Module by module of a residual block; `inside` are their names for its parts."""
    return {f"{ours}.{our}": f"{theirs}.{their}" for our, their in inside.items()}


def level_names(
    ours: str, level: nn.Module, blocks: list[str], attentions: list[str], inside: Mapping[str, str]
) -> dict[str, str]:
    """Of all blocks and attentions of a level; `blocks` and `attentions` are their names, one for each place."""
    assert isinstance(level, Heard)
    named: dict[str, str] = {}
    for i, theirs in enumerate(blocks):
        named |= block_names(f"{ours}.blocks.{i}", theirs, inside)
    for i, attention in enumerate(level.attentions):
        named |= transformer_names(f"{ours}.attentions.{i}", attentions[i], attention)
    return named


def sizes(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """The shape of a tensor that a layout must have."""
    if key not in weights:
        raise UserError(
            f"The weights lack {key}, so they are not of a U-Net with blocks and spatial transformers as latent "
            "diffusion's text-conditional models have: that is the only kind whose structure can be read from weights."
        )
    return tuple(weights[key].shape)


def channels_told(entering: int, leaving: int) -> dict[str, int | bool]:
    """What the widths of the first and the last convolution tell."""
    if leaving == 2 * entering:
        return {"in_channels": entering, "learned_variance": True}
    return {"in_channels": leaving, "concat_channels": max(0, entering - leaving)}


def transformers_told(depth: list[int], linear: bool, channels: int) -> Transformers:
    """Heads leave no trace in shapes: with linear projections 64 channels each, as in Stable Diffusion 2, else 8."""
    head_width = 64 if linear and channels % 64 == 0 else None
    return Transformers(
        depth=depth[0] if len(set(depth)) == 1 else depth, head_width=head_width, linear_projections=linear
    )
