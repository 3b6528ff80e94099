"""The seam of every training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ldm.diffusion.process import Diffusion


@dataclass(frozen=True)
class Example:
    """What a batch of training examples is made of: x_t is x0 spoiled by eps to time t.

    x0, eps, x_t: (B, C, ...); t: (B,).
    """

    x0: Tensor
    eps: Tensor
    t: Tensor
    x_t: Tensor


class Objective(ABC):
    """What a network is trained to make small.

    Attributes:
        needs_variance: the network has to return 2C channels, the second half for the learned variance.
        is_bound: a bound on the likelihood: an integral over uniform times, corrected for other laws of times.
        trains_path: what it does to a path that learns has a meaning; see ContinuousBound.
    """

    needs_variance: bool = False
    is_bound: bool = False
    trains_path: bool = False

    @abstractmethod
    def __call__(self, diffusion: Diffusion, example: Example, output: Tensor, variance: Tensor | None) -> Tensor:
        """One number per sample, (B,).

        output (B, C, ...) is the network's in the terms of diffusion.prediction; variance (B, C, ...) holds the raw
        extra channels of a network that has them.
        """

    def check(self, diffusion: Diffusion) -> None:  # noqa: B027 (the simple objective suits every process)
        """Raise ValueError where the objective has no meaning for this process, saying what to use instead."""
