"""An exponential moving average of weights, kept in float32 whatever the weights' own precision is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class WeightAverage:
    """The moving average of a set of named parameters.

    With warm-up the n-th update uses min(decay, (1 + n) / (10 + n)), n counted from 1, so that the average
    does not remember the random weights of the start for the first 1 / (1 - decay) updates.

    Args:
        parameters: the tensors to follow, by name; the average starts as a float32 copy of them.
        decay: the weight of the past in one update, in [0, 1).
        warmup: ramp the decay up over the first updates.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"An EMA decay of {decay} is outside [0, 1): choose 0.9999, say.")
        self.decay = decay
        self.warmup = warmup
        self.num_updates = 0
        self.weights: dict[str, Tensor] = {}
        self.restart(parameters)

    def restart(self, parameters: Mapping[str, Tensor]) -> None:
        """Forget the past: the average becomes a copy of `parameters`."""
        self.num_updates = 0
        self.weights = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move the average towards `parameters` by one step."""
        self.num_updates += 1
        n = self.num_updates
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        live = [parameters[name].detach() for name in self.weights]
        if live and next(iter(self.weights.values())).device != live[0].device:
            self.weights = {name: w.to(p.device) for (name, w), p in zip(self.weights.items(), live, strict=True)}
        torch._foreach_lerp_(list(self.weights.values()), [p.float() for p in live], 1.0 - decay)

    @contextmanager
    def swapped(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block `parameters` hold the average; afterwards they are what they were, bit for bit.

        Values are copied into the tensors in place, so that compiled graphs and DDP keep seeing the same storage.
        """
        kept = {name: parameters[name].detach().clone() for name in self.weights}
        try:
            copy_weights(self.weights, parameters)
            yield
        finally:
            copy_weights(kept, parameters)

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self.decay, "num_updates": self.num_updates, "weights": dict(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        missing = self.weights.keys() ^ state["weights"].keys()
        if missing:
            raise ValueError(f"The EMA weights do not fit this network: {sorted(missing)[:5]} differ.")
        self.num_updates = int(state["num_updates"])
        copy_weights(state["weights"], self.weights)


@torch.no_grad()
def copy_weights(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy every tensor of `source` into the tensor of the same name in `target`, in place."""
    for name, value in source.items():
        target[name].copy_(value)
    torch.clear_autocast_cache()  # autocast remembers casts of weights, which would now be of the old values
