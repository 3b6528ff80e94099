"""Several optimizers that step together, each with its own schedule.

To the trainer they are one, so that accumulation, mixed precision, distributed training, counting of steps and resuming
are the trainer's own, as for any model. (With two optimizers side by side it would count each batch twice, and a scaler
of float16 gradients would change between the first one's step and the second one's.)
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class JointOptimizer(Optimizer):
    """Optimizers of different parameters as one.

    Args:
        parts: the optimizers; their parameter groups are the groups of this one.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})
        self.parts = list(parts)
        self.gather()

    def gather(self) -> None:
        """Make the parts' groups this one's, the very same objects, so that whoever changes one changes the other."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> Any:
        """The moments by parameter, for reading."""
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    @state.setter
    def state(self, value: Any) -> None:  # the base class sets an empty one
        pass

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.gather()


class JointSchedule(LRScheduler):
    """The schedules of a `JointOptimizer`'s parts as one.

    Args:
        optimizer: the joint optimizer.
        parts: the schedule of each of its parts, None where the learning rate stays.
    """

    def __init__(self, optimizer: JointOptimizer, parts: Sequence[LRScheduler | None]) -> None:
        self.optimizer = optimizer
        self.parts = list(parts)

    def step(self, epoch: int | None = None) -> None:
        for part in self.parts:
            if part is not None:
                part.step()

    def get_last_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [None if part is None else {"name": kind(part), **part.state_dict()} for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A part of another kind than was saved, or that was not there, stays as it is."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            if part is not None and state is not None and state["name"] == kind(part):
                part.load_state_dict({k: copy.copy(v) for k, v in state.items() if k != "name"})


def kind(schedule: LRScheduler) -> str:
    return type(schedule).__name__
