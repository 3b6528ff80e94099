"""What the layouts of latent diffusion's autoencoders share: the same parts, of which each has words of its own."""

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.conv import Decoder, Encoder, Level
from ldm.autoencoders.kl import KLAutoencoder
from ldm.autoencoders.quantised import QuantisedAutoencoder
from ldm.autoencoders.quantisers import VQ
from ldm.errors import UserError
from ldm.nn.layout import Names, Theirs, named_tensors
from ldm.nn.resample import Downsample, Upsample
from ldm.nn.resnet import GroupNorm, ResBlock
from ldm.nn.spatial_attention import SpatialAttention

STATISTICS = ("latent_mean", "latent_std", "latent_samples")  # ours alone
CODEBOOK, THEIR_CODEBOOK = "quantiser.codebook", "quantize.embedding.weight"
KNOWN = (
    *(Encoder, Decoder, Level, ResBlock, SpatialAttention, Downsample, Upsample, VQ, GroupNorm),
    *(nn.Sequential, nn.ModuleList, nn.Conv2d, nn.Dropout, nn.Identity),
)


@dataclass(frozen=True)
class Words:
    """What a layout calls the parts of the encoder and of the decoder.

    Attributes:
        down, up: a level; {level} counts from the images' resolution, {place} in the order in which levels run.
        block, attention: the {index}th of a level.
        downsample, upsample: the module in a level that holds the convolution.
        middle: its first block, its attention, its second block.
        shortcut: the 1x1 convolution of a block that changes the width.
        norm, qkv, out: the parts of an attention; our one tensor of queries, keys and values is three there.
        norm_out: the last norm.
    """

    down: str
    up: str
    block: str
    attention: str
    downsample: str
    upsample: str
    middle: tuple[str, str, str]
    shortcut: str
    norm: str
    qkv: tuple[str, str, str]
    out: str
    norm_out: str


def tensor_names(net: Autoencoder, words: Words, title: str) -> Names:
    """Our tensors' names -> theirs; a UserError where a part of `net` has none."""
    encoder, decoder = require_parts(net, title)
    modules: dict[str, Theirs] = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for ours, half in (("encoder", encoder), ("decoder", decoder)):
        modules |= {f"{ours}.{conv}": f"{ours}.{conv}" for conv in ("conv_in", "conv_out")}
        modules[f"{ours}.norm_out"] = f"{ours}.{words.norm_out}"
        modules |= middle_names(f"{ours}.mid", ours, half.mid, words)
    for place, level in enumerate(encoder.down):
        theirs = f"encoder.{words.down.format(level=place, place=place)}"
        modules |= level_names(f"encoder.down.{place}", theirs, level, words, words.downsample)
    for place, level in enumerate(decoder.up):
        theirs = f"decoder.{words.up.format(level=len(decoder.up) - 1 - place, place=place)}"
        modules |= level_names(f"decoder.up.{place}", theirs, level, words, words.upsample)
    left = set(unnamed(net)) | {CODEBOOK}
    keys = net.state_dict().keys()
    codebook = {CODEBOOK: THEIR_CODEBOOK} if CODEBOOK in keys else {}
    return named_tensors([key for key in keys if key not in left], modules) | codebook


def unnamed(net: Autoencoder) -> Collection[str]:
    """The latent statistics, and what a quantiser keeps beside its codebook for its training."""
    keys = net.state_dict()
    return [key for key in keys if key in STATISTICS or (key.startswith("quantiser.") and key != CODEBOOK)]


def require_parts(net: Autoencoder, title: str) -> tuple[Encoder, Decoder]:
    """Its encoder and decoder, if `net` is built of nothing but what the published autoencoders are built of."""
    if not isinstance(net, KLAutoencoder | QuantisedAutoencoder):
        raise UserError(
            f"{title} has no names for a {type(net).__name__}: only a KLAutoencoder and a QuantisedAutoencoder with VQ "
            "can be written so."
        )
    further = [type(module).__name__ for module in net.modules() if module is not net and type(module) not in KNOWN]
    if further or net.encoder.shortcut_out or net.decoder.shortcut_in:
        told = further[0] if further else "the shortcuts of space-to-channel resampling"
        raise UserError(
            f"{title} has no names for {told}: only autoencoders that resample by convolutions, with the quantiser VQ "
            "or none, can be written so."
        )
    return net.encoder, net.decoder


def norm_groups(net: Autoencoder) -> set[int]:
    """The numbers of groups of all its norms."""
    return {module.num_groups for module in net.modules() if isinstance(module, nn.GroupNorm)}


def level_names(ours: str, theirs: str, level: nn.Module, words: Words, resampler: str) -> dict[str, Theirs]:
    assert isinstance(level, Level)
    named: dict[str, Theirs] = {f"{ours}.resample.conv": f"{theirs}.{resampler}.conv"}
    for index in range(len(level.blocks)):
        named |= block_names(f"{ours}.blocks.{index}", f"{theirs}.{words.block.format(index=index)}", words)
        attention = f"{theirs}.{words.attention.format(index=index)}"
        named |= attention_names(f"{ours}.attentions.{index}", attention, words)
    return named


def middle_names(ours: str, half: str, middle: nn.Sequential, words: Words) -> dict[str, Theirs]:
    first, attention, second = (f"{half}.{word}" for word in words.middle)
    named = block_names(f"{ours}.0", first, words) | block_names(f"{ours}.2", second, words)
    return named | attention_names(f"{ours}.1", attention, words)


def block_names(ours: str, theirs: str, words: Words) -> dict[str, Theirs]:
    same = {part: part for part in ("norm1", "conv1", "norm2", "conv2")}
    return {f"{ours}.{our}": f"{theirs}.{their}" for our, their in {**same, "shortcut": words.shortcut}.items()}


def attention_names(ours: str, theirs: str, words: Words) -> dict[str, Theirs]:
    return {
        f"{ours}.norm": f"{theirs}.{words.norm}",
        f"{ours}.qkv": tuple(f"{theirs}.{word}" for word in words.qkv),
        f"{ours}.out": f"{theirs}.{words.out}",
    }


def describe(weights: Mapping[str, Tensor], words: Words) -> dict[str, Any]:
    """Arguments of KLAutoencoder, or of QuantisedAutoencoder where there is a `quantiser` among them.

    Raises:
        KeyError: a tensor that every such autoencoder has is missing.
        UserError: the widths are not multiples of the first.
    """

    place = f"encoder.{words.down}.{{part}}"

    def key(level: int, part: str, tensor: str, index: int = 0) -> str:
        return f"{place.format(level=level, place=level, part=part.format(index=index))}.{tensor}"

    num_levels = counted(lambda level: key(level, words.block, "conv1.weight") in weights)
    num_res_blocks = counted(lambda index: key(0, words.block, "conv1.weight", index) in weights)
    widths = [weights[key(level, words.block, "conv2.weight")].shape[0] for level in range(num_levels)]
    if any(width % widths[0] for width in widths):
        raise UserError(f"The levels are {widths} channels wide: ldm builds only multiples of the first width.")
    told: dict[str, Any] = {}
    if THEIR_CODEBOOK in weights:
        told["quantiser"] = VQ(*weights[THEIR_CODEBOOK].shape)
    else:
        told["latent_channels"] = weights["quant_conv.weight"].shape[0] // 2
    norm = f"{words.norm}.weight"
    return {
        **told,
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "channels": widths[0],
        "channel_multipliers": [width // widths[0] for width in widths],
        "num_res_blocks": num_res_blocks,
        "attention_levels": [i for i in range(num_levels) if key(i, words.attention, norm) in weights],
        "middle_attention": f"encoder.{words.middle[1]}.{norm}" in weights,
    }


def counted(is_there: Callable[[int], bool]) -> int:
    """How many of the numbers 0, 1, ... are there before the first that is not."""
    return next(number for number in itertools.count() if not is_there(number))


def with_quant_convs(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A KL autoencoder without the 1x1 convolutions around its latent has identities there, which change no value.

    Those of Stable Diffusion 3 and FLUX.1 are such.
    """
    quant = ("quant_conv", "post_quant_conv")
    has_some = any(key.startswith(quant) for key in weights) or THEIR_CODEBOOK in weights
    if has_some or not {"encoder.conv_out.weight", "decoder.conv_in.weight"} <= weights.keys():
        return dict(weights)
    first, last = weights["encoder.conv_out.weight"], weights["decoder.conv_in.weight"]
    added: dict[str, Tensor] = {}
    for name, channels in zip(quant, (first.shape[0], last.shape[1]), strict=True):
        added[f"{name}.weight"] = torch.eye(channels, dtype=first.dtype, device=first.device)[:, :, None, None]
        added[f"{name}.bias"] = torch.zeros(channels, dtype=first.dtype, device=first.device)
    return {**weights, **added}
