"""What a source has to offer for each tensor of a new model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.adapting.labels import label_rows, places
from ldm.adapting.resizing import embedding_for_patches, inputs_for_channels, patch_head
from ldm.adapting.source import Source
from ldm.conditioners import Conditioner, Embedder, Label
from ldm.diffusion import Process
from ldm.networks import DiT, MMDiT, Network, UNet

OURS = (DiT, MMDiT, UNet)  # whose tensors of these names mean what the rules below take them for


@dataclass(frozen=True)
class Offer:
    """A tensor of the source for one of the new model.

    Attributes:
        origin: its name in the source.
        given: as it was there.
        made: as the new model wants it; of another shape where that cannot be.
        how: what was done.
    """

    origin: str
    given: Tensor
    made: Tensor
    how: str = ""


def entering(given: Tensor, fresh: Tensor, source: Any, target: Any) -> Tensor:
    """The first layer: other patches are resized, channels that are new are not heard."""
    if len(given) != len(fresh):
        return given
    before, after = inputs(source), inputs(target)
    known = inputs_for_channels(torch.ones_like(given[:, :, :1, :1]), before, after)  # 0 for channels that are new
    return embedding_for_patches(inputs_for_channels(given, before, after), fresh.shape[-1], fresh * known)


def leaving(given: Tensor, fresh: Tensor, source: Any, target: Any) -> Tensor:
    """The last layer: other patches are resized, channels that are new start as in a new model."""
    if given.shape[1:] != fresh.shape[1:]:
        return given
    patches = getattr(source, "patch_size", 1), getattr(target, "patch_size", 1)
    return patch_head(given, fresh, patches, (outputs(source), outputs(target)))


def positions(given: Tensor, fresh: Tensor, source: Any, target: Any) -> Tensor:
    """A trained table of places, resized as it is for an image of another size."""
    if given.shape[1] != fresh.shape[1] or source.grid == target.grid:
        return given
    return target.positions.resized(given, source.grid, target.grid)


RULES: dict[str, tuple[Callable[[Tensor, Tensor, Any, Any], Tensor], str]] = {
    "patch_embed.weight": (entering, "patches, channels"),
    "conv_in.weight": (entering, "channels"),
    "head.linear.weight": (leaving, "patches, channels"),
    "head.linear.bias": (leaving, "patches, channels"),
    "head.conv.weight": (leaving, "channels"),
    "head.conv.bias": (leaving, "channels"),
    "pos_embed": (positions, "grid"),
}


def inputs(net: Any) -> tuple[int, int, int]:
    """Channels of the parts of the first layer's input: x_t, an estimate of x0, an image beside it."""
    return net.in_channels, net.in_channels if net.self_conditioning else 0, net.concat_channels


def outputs(net: Network) -> tuple[int, int]:
    """Channels of the parts of the output: the prediction, the variance."""
    return net.in_channels, net.out_channels - net.in_channels


def net_offers(source: Source, target: Network) -> dict[str, Offer]:
    """For the network, by names as in the task's state dict."""
    given, own, offers = network_weights(source), target.state_dict(), {}
    rules = RULES if isinstance(source.net, OURS) and isinstance(target, OURS) else {}
    for name in own.keys() & given.keys():
        made, how = given[name], ""
        if name in rules:
            rule, how = rules[name]
            made = rule(given[name], own[name], source.net, target)
        offers[f"net.{name}"] = Offer(f"net.{name}", given[name], made, how)
    return offers


def network_weights(source: Source) -> dict[str, Tensor]:
    """The trained tensors of a source's network, and its table of places even where that is fixed."""
    weights = {name: tensor for name, tensor in source.net.state_dict().items() if name not in source.untrained}
    if isinstance(source.net, DiT | MMDiT):
        weights["pos_embed"] = source.net.pos_embed.detach()
    return weights


def conditioner_offers(source: Source, target: Conditioner, classes: Sequence[str] | None) -> dict[str, Offer]:
    """For the conditioner: an embedder's weights go to one of its kind, wherever that stands."""
    offers: dict[str, Offer] = {}
    before, after = list(source.conditioner), list(target)
    for new, old in pairs(before, after).items():
        for name, tensor in before[old].state_dict().items():
            made, how = tensor, ""
            if name == "embedding.weight" and isinstance(before[old], Label):
                made, how = labels(tensor, before[old], after[new], source.classes, classes)
            offers[f"conditioner.embedders.{new}.{name}"] = Offer(
                f"conditioner.embedders.{old}.{name}", tensor, made, how
            )
    return offers


def labels(
    table: Tensor, before: Any, after: Any, names_before: Sequence[str] | None, names_after: Sequence[str] | None
) -> tuple[Tensor, str]:
    """The label table for the new classes, and how it was made."""
    where = places(names_before, names_after, before.num_classes, after.num_classes)
    by = "number" if names_before is None or names_after is None else "name"
    known = sum(place is not None for place in where)
    new = len(where) - known
    return label_rows(table, where), f"{known} classes by {by}" + (f", {new} new as the mean" if new else "")


def pairs(before: Sequence[Embedder], after: Sequence[Embedder]) -> dict[int, int]:
    """Place among the new embedders -> place among the old: of the same class and entries, else of the same class."""
    found: dict[int, int] = {}
    likenesses: tuple[Callable[[Embedder, Embedder], bool], ...] = (
        lambda one, other: type(one) is type(other) and one.keys == other.keys,
        lambda one, other: type(one) is type(other),
    )
    for alike in likenesses:
        for new, embedder in enumerate(after):
            free = (old for old in range(len(before)) if old not in found.values() and alike(before[old], embedder))
            if new not in found and (old := next(free, None)) is not None:
                found[new] = old
    return found


def diffusion_offers(source: Process | None, target: Process) -> dict[str, Offer]:
    """For what the process itself learns, where it is of the same kind."""
    if source is None or type(source) is not type(target) or type(source.path) is not type(target.path):
        return {}
    given: Mapping[str, Tensor] = dict(source.named_parameters())
    return {f"diffusion.{name}": Offer(f"diffusion.{name}", t.detach(), t.detach()) for name, t in given.items()}
