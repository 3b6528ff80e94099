"""Times even in some function of the noise level, on or off the grid of a discrete path."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.spacings.base import Spacing

INSIDE = 0.01  # how far before a last time without data, as a share of all times, the even levels begin


class LogSNR(Spacing):
    """Even steps in log-SNR, off a discrete path's grid too: for the DPM-Solvers at few steps.

    From t_max to t_min, both visited (Lu et al. 2022, arXiv 2206.00927, section 3.4). Where logsnr(t_max) is
    infinite, the first time is t_max alone, and the even levels begin one hundredth of the way before it.
    """

    def times(self, num_steps: int, path: Path) -> Tensor:
        return even_levels(num_steps, path, lambda logsnr: logsnr, lambda level: level)


class Karras(Spacing):
    """Steps that crowd near the data, off a discrete path's grid too: EDM's choice, for any sampler.

    sigma / alpha = (high^(1/rho) + i / (N-1) (low^(1/rho) - high^(1/rho)))^rho, i = 0..N-1, between its values at t_max
    and t_min (Karras et al. 2022, arXiv 2206.00364, eq. 5). Where it is infinite at t_max, the first time is t_max
    alone, and the levels begin one hundredth of the way before it.

    Args:
        rho: How much the steps crowd, over 0; 1 is even in sigma / alpha.
    """

    def __init__(self, rho: float = 7.0) -> None:
        if not 0 < rho < math.inf:
            raise ValueError(f"rho={rho} spaces no steps; choose a number over 0 (7 is usual).")
        self.rho = rho

    def times(self, num_steps: int, path: Path) -> Tensor:
        two_rho = 2 * self.rho
        return even_levels(
            num_steps, path, lambda logsnr: (-logsnr / two_rho).exp(), lambda level: -two_rho * level.log()
        )


def even_levels(
    num_steps: int, path: Path, measure: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
) -> Tensor:
    """Times (num_steps,) from t_max to t_min, even in measure(logsnr), whose inverse is `back`."""
    if not isinstance(path, NoisePath):
        raise ValueError(
            f"{type(path).__name__} adds no noise, so no spacing by noise level; use Trailing or Linspace."
        )
    ends = torch.tensor([path.t_max, path.t_min], dtype=torch.float64)
    with torch.no_grad():
        infinite = bool(path.logsnr(ends[:1]) == -math.inf)
        if infinite:
            ends[0] -= INSIDE * (path.t_max - path.t_min)
        high, low = measure(path.logsnr(ends))
        count = num_steps - infinite
        share = torch.linspace(0, 1, count, dtype=torch.float64)
        times = path.t_from_logsnr(back(high + (low - high) * share))
    times = torch.cat([ends.new_tensor([path.t_max]), times if infinite else times[1:]])
    if num_steps > 1:
        times[-1] = path.t_min  # not a rounding beside it
    return times
