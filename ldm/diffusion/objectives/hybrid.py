"""The simple loss, and a little of the bound to learn the variance by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from ldm.diffusion.bounds import check_levels
from ldm.diffusion.objectives.base import Example, Objective
from ldm.diffusion.objectives.simple import Simple
from ldm.diffusion.objectives.variational_bound import bound_step
from ldm.diffusion.variances import LearnedRange

if TYPE_CHECKING:
    from ldm.diffusion.process import Diffusion


class Hybrid(Objective):
    """L_simple + vlb_weight * L_vlb (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 16), for a LearnedRange variance.

    L_vlb is T times a step's term in nats per dimension, as in VariationalBound, and its gradient reaches the variance
    alone: the estimate of x0 is detached in it. (The authors' code counts bits per dimension, which is
    vlb_weight / ln 2 here.)

    Args:
        vlb_weight: Weight of the bound, over 0.
        levels: How many values the data have between -1 and 1, see VariationalBound.
    """

    needs_variance = True

    def __init__(self, vlb_weight: float = 0.001, levels: int | None = None) -> None:
        if not 0 < vlb_weight < math.inf:
            raise ValueError(
                f"vlb_weight={vlb_weight} does not train the variance; choose a finite number over 0 (0.001 is usual)."
            )
        check_levels(levels)
        self.vlb_weight = vlb_weight
        self.levels = levels

    def __call__(self, diffusion: Diffusion, example: Example, output: Tensor, variance: Tensor | None) -> Tensor:
        x0 = diffusion.prediction.to_x0(output.detach(), example.x_t, example.t, diffusion.path)
        bound = bound_step(diffusion.path, LearnedRange(), self.levels, example, x0, variance)
        return Simple()(diffusion, example, output, None) + self.vlb_weight * bound

    def check(self, diffusion: Diffusion) -> None:
        if diffusion.path.num_steps is None:
            raise ValueError(
                "The objective Hybrid learns the variance of the steps of a discrete path, and "
                f"{type(diffusion.path).__name__} is continuous: use the objective Simple and a net without "
                "learned_variance, or a discrete path such as Linear."
            )
