"""Giving a new model the weights of a trained one, as far as they fit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm.adapting.notes import notes
from ldm.adapting.offers import Offer, conditioner_offers, diffusion_offers, net_offers
from ldm.adapting.other_blocks import with_blocks_of
from ldm.adapting.report import Entry, Report
from ldm.adapting.source import Source
from ldm.errors import UserError
from ldm.tasks import DiffusionTask

MOST_NAMED = 3  # keys in a message


def adapt(task: DiffusionTask, source: Source, classes: Sequence[str] | None = None) -> Report:
    """Start a task from the weights of another model; what does not fit stays as it is.

    Args:
        task: the new model, as it was built.
        source: the other model; see `read_source`.
        classes: what the new data set calls its classes, where that is known: vectors of classes are then taken by
            name, if the source has names too, and else by number.

    Raises:
        UserError: nothing of it fits; the first keys that differ are named.
    """
    source = with_blocks_of(task, source)
    offers = {
        **net_offers(source, task.net),
        **conditioner_offers(source, task.conditioner, classes),
        **diffusion_offers(source.diffusion, task.diffusion),
    }
    own = trained_state(task)
    fitting = {name: offer for name, offer in offers.items() if name in own and offer.made.shape == own[name].shape}
    check_some_fit(source.place, own, offers, fitting)
    with torch.no_grad():
        for name, offer in fitting.items():
            own[name].copy_(offer.made)
    return report(source, task, own, fitting)


def trained_state(task: DiffusionTask) -> dict[str, Tensor]:
    """The tensors of a task that a source may give, in their own storage."""
    modules = {"net": task.net, "conditioner": task.conditioner}
    state = {
        f"{part}.{name}": tensor for part, module in modules.items() for name, tensor in module.state_dict().items()
    }
    return {**state, **{f"diffusion.{name}": p.detach() for name, p in task.diffusion.named_parameters()}}


def check_some_fit(
    place: str, own: Mapping[str, Tensor], offers: Mapping[str, Offer], fitting: Mapping[str, Offer]
) -> None:
    """Raise a UserError where no matrix fits: a bias here and there is not worth starting from."""
    if any(offer.made.dim() >= 2 for offer in fitting.values()):
        return
    differ = [
        f"{name} is {list(offers[name].given.shape)} there and {list(tensor.shape)} here"
        for name, tensor in own.items()
        if name in offers and name not in fitting
    ]
    if not differ:
        differ = [f"{name} is not there" for name in own if name not in offers]
    raise UserError(
        f"init_from: nothing of {place} fits this model: {'; '.join(differ[:MOST_NAMED])}. Give the network the "
        "kind and the width of the trained one, or take init_from out."
    )


def report(source: Source, task: DiffusionTask, own: Mapping[str, Tensor], fitting: Mapping[str, Offer]) -> Report:
    """What became of each tensor."""
    made = Report(source.place, notes=notes(source, task))
    for name, tensor in own.items():
        shape, offer = tuple(tensor.shape), fitting.get(name)
        if offer is None:
            made.initialised.append(Entry(name, shape))
        elif offer.given.shape == offer.made.shape and torch.equal(offer.given, offer.made):
            made.kept.append(Entry(name, shape))
        else:
            made.resized.append(Entry(name, shape, tuple(offer.given.shape), offer.how))
    used = {offer.origin for offer in fitting.values()}
    parts = {"net": source.net, "conditioner": source.conditioner}
    for part, module in parts.items():
        for name, tensor in module.state_dict().items():
            if f"{part}.{name}" not in used and name not in source.untrained:
                made.unused.append(Entry(f"{part}.{name}", tuple(tensor.shape)))
    return made
