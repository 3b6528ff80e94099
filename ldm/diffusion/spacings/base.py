"""The seam of every choice of the times that a sampler visits."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ldm.diffusion.paths import Path


class Spacing(ABC):
    """Which times a sampler visits on its way from t_max to 0."""

    @abstractmethod
    def times(self, num_steps: int, path: Path) -> Tensor:
        """The times the model is asked at: float64 (num_steps,) on the CPU, falling strictly, all over 0.

        Raises:
            ValueError: the path cannot be walked like this.
        """

    def grid(self, num_steps: int, path: Path) -> Tensor:
        """`times`, and 0 behind them: float64 (num_steps + 1,)."""
        return torch.cat([self.times(num_steps, path), torch.zeros(1, dtype=torch.float64)])


def refuse_more_steps(num_steps: int, path: Path) -> None:
    """ValueError where a spacing that stays on the grid of a discrete path is to take more steps than it has."""
    if path.num_steps is not None and num_steps > path.num_steps:
        raise ValueError(
            f"num_steps={num_steps} is more than the {path.num_steps} steps of {type(path).__name__}; choose at most "
            f"{path.num_steps}, or a spacing that goes between them: LogSNR or Karras."
        )


def falling(count: int) -> Tensor:
    """count, ..., 2, 1 in float64."""
    return torch.arange(count, 0, -1, dtype=torch.float64)
