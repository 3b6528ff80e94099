"""From what is asked for, by name, to what a network hears."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.conditioners import Conditioner, Embedder
from ldm.networks import Conditioning
from ldm.sampling.request import Request, Wish
from ldm.tasks import DiffusionTask


def wanted_condition(task: DiffusionTask, request: Request) -> Conditioning:
    """What the network hears of a request."""
    return condition(task, request.wish, len(request.seeds))


def other_condition(task: DiffusionTask, request: Request) -> Conditioning:
    """What guidance holds that against: what is to be avoided and, of all else, nothing.

    What the model was never trained without, and what has a value without being named (sizes, say), stays as wanted.
    """
    guided = guided_entries(task)
    held = {key: values for key, values in request.wish.items() if key not in guided}
    return condition(task, {**held, **instead(request.avoided, held)}, len(request.seeds))


def guided_entries(task: DiffusionTask) -> set[str]:
    """The entries that guidance drops where nothing is to be avoided in their place."""
    both = zip(task.conditioner, task.conditioner.droppable(), strict=True)
    named = [
        embedder for embedder, droppable in both if droppable and not set(embedder.keys) <= embedder.defaults.keys()
    ]
    return {key for embedder in named for key in (*embedder.keys, *embedder.defaults)}


def instead(avoided: Wish, held: Wish) -> Wish:
    """What is to be avoided; in an image of which nothing is said, what is held, if the model never did without."""
    return {
        key: values
        if isinstance(values, Tensor) or key not in held
        else [there if value is None else value for value, there in zip(values, held[key], strict=True)]
        for key, values in avoided.items()
    }


def condition(task: DiffusionTask, wish: Wish, count: int) -> Conditioning:
    """What a task's network hears of a wish for `count` images; of what is not named, the embedders' nulls."""
    columns = [rows_without(embedder, wish, count) for embedder in task.conditioner]
    drop = torch.tensor(columns, dtype=torch.bool).reshape(-1, count).T.to(task.device)
    return task.conditioner(as_batch(task.conditioner, wish, count, task.device), drop)


def rows_without(embedder: Embedder, wish: Wish, count: int) -> list[bool]:
    """Of each image, whether the wish lacks what an embedder needs."""
    lacking = [False] * count
    for key in embedder.keys:
        if key not in wish and key not in embedder.defaults:
            return [True] * count
        values = wish.get(key)
        if values is not None and not isinstance(values, Tensor):
            lacking = [lacks or value is None for lacks, value in zip(lacking, values, strict=True)]
    return lacking


def as_batch(conditioner: Conditioner, wish: Wish, count: int, device: torch.device) -> Mapping[str, Any]:
    """A wish as a batch: numbers as tensors, text as lists, with the defaults of what is not named.

    A value that is missing is replaced by another image's: its row is dropped anyway.
    """
    batch: dict[str, Sequence[Any] | Tensor] = {}
    for embedder in conditioner:
        batch |= {key: [value] * count for key, value in embedder.defaults.items()}
    for key, values in wish.items():
        there = values if isinstance(values, Tensor) else [value for value in values if value is not None]
        if len(there):
            batch[key] = values if isinstance(values, Tensor) else [there[0] if v is None else v for v in values]
    return {key: collated(values, device) for key, values in batch.items()}


def collated(values: Sequence[Any] | Tensor, device: torch.device) -> Any:
    """One value an image as a tensor, or as a list of texts."""
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values[0], Tensor):
        return torch.stack(list(values)).to(device)
    return list(values) if isinstance(values[0], str) else torch.tensor(list(values), device=device)
