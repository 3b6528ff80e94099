"""What the config says of optimizer and schedule, so that a resumed run follows a config that has changed.

Their saved states hold the old numbers beside the moments, and loading them would silently undo the change.
"""

import copy
import warnings
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ldm.errors import UserError
from ldm.tasks.joint import JointOptimizer


def hyperparameters(optimizer: Optimizer, scheduler: LRScheduler | None) -> dict[str, Any]:
    """Plain data that two newly built pairs have in common exactly if they were built alike."""
    return copy.deepcopy(
        {
            "optimizer": kind_of(optimizer),
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
            "scheduler": None if scheduler is None else {"name": type(scheduler).__name__, **scheduler.state_dict()},
        }
    )


def kind_of(optimizer: Optimizer) -> str:
    """What it is called; of a joint one what its parts are called."""
    parts = optimizer.parts if isinstance(optimizer, JointOptimizer) else [optimizer]
    return " + ".join(type(part).__name__ for part in parts)


def check_optimizer(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a UserError where the saved moments are those of another kind of optimizer."""
    if saved["optimizer"] != wanted["optimizer"] or len(saved["groups"]) != len(wanted["groups"]):
        raise UserError(
            f"The checkpoint was trained with {saved['optimizer']} and the config names {wanted['optimizer']}, which "
            "cannot go on with its moments: give the same optimizer, or start a new run."
        )


def follow(
    optimizer: Optimizer, scheduler: LRScheduler | None, saved: dict[str, Any], wanted: dict[str, Any], steps: int
) -> None:
    """Bring a restored pair to what it would be after `steps` steps of the wanted schedule; the moments stay.

    Where nothing has changed nothing is touched.
    """
    new_schedule = saved["scheduler"] != wanted["scheduler"]
    for group, old, new in zip(optimizer.param_groups, saved["groups"], wanted["groups"], strict=True):
        group.update({k: v for k, v in new.items() if new_schedule or k not in old or old[k] != v})
    if scheduler is None or not new_schedule:
        return
    scheduler.load_state_dict(copy.deepcopy({k: v for k, v in wanted["scheduler"].items() if k != "name"}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step\\(\\)` before `optimizer.step.*")
        for _ in range(steps):
            scheduler.step()
