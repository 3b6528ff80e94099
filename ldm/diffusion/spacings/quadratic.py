"""Strides that shrink evenly toward the data."""

import torch
from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.spacings.base import Spacing, falling, refuse_more_steps


class Quadratic(Spacing):
    """Strides that shrink toward the data: DDIM's choice for CIFAR-10, good with 10 to 50 steps.

    On a path of T steps: k = floor(c i^2) for i = N-1..0 with c such that the first k is T - 1, at t = (k+1)/T (Song et
    al. 2020, arXiv 2010.02502, appendix D.2); where that would repeat a step near the data, k = i. In continuous time
    t_min + (t_max - t_min) (i / (N-1))^2.
    """

    def times(self, num_steps: int, path: Path) -> Tensor:
        refuse_more_steps(num_steps, path)
        up = falling(num_steps) - 1
        share = (up / (num_steps - 1)).square() if num_steps > 1 else torch.ones(1).double()
        if path.num_steps is not None:
            steps = ((path.num_steps - 1) * share + 1e-9).floor()  # a rounding must not lose a whole step
            return (torch.maximum(steps, up) + 1) / path.num_steps
        times: Tensor = path.t_min + (path.t_max - path.t_min) * share
        times[0] = path.t_max  # not a rounding beside it
        return times
