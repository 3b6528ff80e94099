"""Both ends of the path, and even strides between them."""

import torch
from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.spacings.base import Spacing, falling, refuse_more_steps


class Linspace(Spacing):
    """Even strides from t_max to t_min, both visited (Lin et al. 2023, arXiv 2305.08891, table 2).

    On a path of T steps: k = round((T-1) i / (N-1)) for i = N-1..0, at t = (k+1)/T. In continuous time the strides are
    even in t^(1/rho), with the path's own rho. A single step starts from t_max.
    """

    def times(self, num_steps: int, path: Path) -> Tensor:
        refuse_more_steps(num_steps, path)
        share = (falling(num_steps) - 1) / max(num_steps - 1, 1) if num_steps > 1 else torch.ones(1).double()
        if path.num_steps is not None:
            return (((path.num_steps - 1) * share).round() + 1) / path.num_steps
        low, high = path.t_min ** (1 / path.rho), path.t_max ** (1 / path.rho)
        times: Tensor = (low + (high - low) * share) ** path.rho
        times[0] = path.t_max  # not a rounding beside it
        return times
