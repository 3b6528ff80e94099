"""A source whose blocks are of another kind than the new model's, where one kind follows from the other."""

from dataclasses import replace

import torch
from torch import Tensor

from ldm.adapting.source import Source
from ldm.conditioners import Label
from ldm.networks import DiT
from ldm.networks.blocks import AdaLNSingle, AdaLNZero
from ldm.networks.reparameterise import adaln_single_from
from ldm.tasks import DiffusionTask

HALFWAY = 500.0  # what a network of 1000 steps hears in the middle


def with_blocks_of(task: DiffusionTask, source: Source) -> Source:
    """The source with the kind of blocks of the task's network, if adaLN-single is to come from adaLN-Zero."""
    net, target = source.net, task.net
    if not isinstance(net, DiT) or not isinstance(target, DiT):
        return source
    if not isinstance(net.block, AdaLNZero) or not isinstance(target.block, AdaLNSingle):
        return source
    level = halfway(source)
    made = adaln_single_from(net, unasked(source, task), level, target.block)
    untrained = {name for name in made.state_dict().keys() - net.state_dict().keys() if not follows(name)}
    note = f"adaLN-Zero blocks became adaLN-single; outputs are the same at the noise condition {level:g} alone."
    return replace(source, net=made, untrained=frozenset(untrained), notes=(*source.notes, note))


def follows(name: str) -> bool:
    """Whether a tensor of adaLN-single is made of adaLN-Zero's."""
    return name.startswith("hearing.modulation.") or name.rpartition(".")[2] == "table"


def halfway(source: Source) -> float:
    """What the network hears in the middle of its path."""
    if source.diffusion is None:
        return HALFWAY
    return float(source.diffusion.path.noise_condition(torch.tensor([0.5])))


@torch.no_grad()
def unasked(source: Source, task: DiffusionTask) -> Tensor:
    """(D,), the vector of a model that is asked for nothing; zero where the new model has a label to say so itself."""
    assert isinstance(source.net, DiT)
    nothing = source.net.patch_embed.weight.new_zeros(source.net.width)
    if any(isinstance(embedder, Label) for embedder in task.conditioner):
        return nothing
    vector = source.conditioner({}, drop=torch.ones(1, dtype=torch.bool)).vector
    return nothing if vector is None else vector[0]
