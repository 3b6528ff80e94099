"""The variational bound of a discrete path, one random step of it at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm.diffusion.bounds import check_levels, decoder_nll, step_kl
from ldm.diffusion.errors import MSE
from ldm.diffusion.objectives.base import Example, Objective
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.variances import FixedSmall, Variance
from ldm.diffusion.weightings import Uniform

if TYPE_CHECKING:
    from ldm.diffusion.process import Diffusion


class VariationalBound(Objective):
    """L_vlb (Ho et al. 2020, arXiv 2006.11239, eq. 5): its mean over uniform times is the bound without its prior term.

    In nats per dimension: T times the KL divergence of the step from t to t - 1/T, and at t = 1/T T times the negative
    log-likelihood of the decoder. The prior term is a constant and left out.

    Args:
        variance: Spread of the reverse steps; left out, FixedSmall. LearnedRange needs a net with learned_variance.
        levels: How many values the data have between -1 and 1: 256 for 8-bit pixels, and the decoder's term is a
            probability (eq. 13). Left out, as for latents, it is a Gaussian density.
    """

    is_bound = True

    def __init__(self, variance: Variance | None = None, levels: int | None = None) -> None:
        check_levels(levels)
        self.variance = FixedSmall() if variance is None else variance
        self.levels = levels
        self.needs_variance = self.variance.learned

    def __call__(self, diffusion: Diffusion, example: Example, output: Tensor, variance: Tensor | None) -> Tensor:
        x0 = diffusion.prediction.to_x0(output, example.x_t, example.t, diffusion.path)
        return bound_step(diffusion.path, self.variance, self.levels, example, x0, variance)

    def check(self, diffusion: Diffusion) -> None:
        if diffusion.path.num_steps is None:
            raise ValueError(
                f"The objective VariationalBound sums over the steps of a discrete path, and {name(diffusion.path)} is "
                "continuous: use the objective ContinuousBound, or a discrete path such as Linear."
            )
        refuse_weights(self, diffusion)


def bound_step(
    path: NoisePath, variance: Variance, levels: int | None, example: Example, estimate: Tensor, raw: Tensor | None
) -> Tensor:
    """T times the term of the bound that belongs to each sample's step, in nats per dimension: (B,).

    estimate (B, C, ...) is the network's x0, raw its variance channels.
    """
    assert path.num_steps is not None
    step = (example.t.double() * path.num_steps).round()  # on the grid exactly, so that the last step is known as such
    t, s = step / path.num_steps, (step - 1) / path.num_steps
    log_variance = variance.log_variance(path, t, s, raw)
    kl = step_kl(path, t, s, example.x0, estimate, log_variance)
    decoder = decoder_nll(example.x0, estimate, log_variance, levels)
    return path.num_steps * torch.where(s == 0, decoder, kl)


def refuse_weights(objective: Objective, diffusion: Diffusion) -> None:
    """ValueError where a bound, which fixes the weight of every error, is given another weighting or error."""
    given = (("weighting", diffusion.weighting, Uniform), ("error", diffusion.error, MSE))
    for what, part, plain in given:
        if not isinstance(part, plain):
            raise ValueError(
                f"The objective {name(objective)} is a bound on the likelihood, which says itself how squared errors "
                f"count, and would not use the {what} {name(part)}: leave the {what} out, or use the objective Simple."
            )


def name(part: object) -> str:
    return type(part).__name__
