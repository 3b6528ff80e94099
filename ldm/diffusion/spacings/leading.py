"""Even strides up from data, which end short of pure noise."""

from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.spacings.base import Spacing, falling, refuse_more_steps


class Leading(Spacing):
    """Even strides up from t_min, the spacing of DDPM's first code (Lin et al. 2023, arXiv 2305.08891, table 2).

    On a path of T steps: k = i (T // N) for i = N-1..0, at t = (k+1)/T. In continuous time the strides are even in
    t^(1/rho), with the path's own rho. Pure noise is never visited but handed in: for comparison with older results.
    """

    def times(self, num_steps: int, path: Path) -> Tensor:
        refuse_more_steps(num_steps, path)
        up = falling(num_steps) - 1
        if path.num_steps is not None:
            return (up * (path.num_steps // num_steps) + 1) / path.num_steps
        low, high = path.t_min ** (1 / path.rho), path.t_max ** (1 / path.rho)
        times: Tensor = (low + (high - low) * up / num_steps) ** path.rho
        return times
