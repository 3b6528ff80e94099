"""Exact likelihood by the probability-flow ODE, in fixed steps."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.likelihood.base import Likelihood, Term
from ldm.diffusion.likelihood.flow import (
    Flow,
    arc,
    begin,
    check_flow,
    check_start,
    flow,
    prior_nll,
    rademacher,
    time,
)
from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.samplers.base import Noise


class ODE(Likelihood):
    """log p(x0) = log p(z_end) + integral of the divergence (Song et al. 2021, arXiv 2011.13456, appendix D.2), by RK4.

    Equal steps of the angle atan(sigma / alpha), four calls of the network each. The model's own density, but for the
    two ends of the path: alpha x0 is taken for x_t at t_min, so it is the density of data blurred by sigma / alpha
    there, and the law at t_max is taken to be N(0, prior_std^2), as a sampler takes it. For data of `levels` values
    they are spread evenly over their bins, which makes it a bound.

    Args:
        num_steps: Steps of the solver.
        exact_trace: Compute the divergence exactly, a backward pass a dimension; else estimate it with probes.
        num_probes: Random probes of Hutchinson's estimate, fixed along the way; their mean is unbiased.
        start: Time to start at instead of t_min; less blurs less, but no network has seen it.
    """

    bounds = False

    def __init__(
        self, num_steps: int = 50, exact_trace: bool = False, num_probes: int = 1, start: float | None = None
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} takes no step; choose at least 1 (50 is usual).")
        check_flow(num_probes, start)
        self.num_steps = num_steps
        self.exact_trace = exact_trace
        self.num_probes = num_probes
        self.start = start

    def terms(
        self, denoise: Denoise, path: NoisePath, x0: Tensor, noise: Noise, levels: int | None = None
    ) -> Iterator[Term]:
        way = arc(path, self.start)
        z, scale = begin(x0, way, noise, levels)
        yield Term("scale", way.t[0], scale)
        both = flow(denoise, path, way, [] if self.exact_trace else rademacher(noise, self.num_probes))
        first, last = way.angle
        step = (last - first) / self.num_steps
        for index in range(self.num_steps):
            angle = first + index * step
            z, gained = runge_kutta(both, z, angle, step)
            yield Term("step", time(path, angle + step / 2), -gained)
        yield Term("prior", way.t[1], prior_nll(z, way.prior_std))

    def check(self, path: Path) -> None:
        super().check(path)
        check_start(self.start, path)

    def num_terms(self, path: NoisePath) -> int:
        return self.num_steps + 2


def runge_kutta(slope: Flow, z: Tensor, angle: float, step: float) -> tuple[Tensor, Tensor]:
    """One classical step of order 4: the new z, and the integral of the divergence over it (B,)."""
    v1, d1 = slope(z, angle)
    v2, d2 = slope(z + step / 2 * v1, angle + step / 2)
    v3, d3 = slope(z + step / 2 * v2, angle + step / 2)
    v4, d4 = slope(z + step * v3, angle + step)
    return z + step / 6 * (v1 + 2 * v2 + 2 * v3 + v4), step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
