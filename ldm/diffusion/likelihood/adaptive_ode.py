"""Exact likelihood by the probability-flow ODE, in steps that the solver chooses."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torchdiffeq import odeint

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.likelihood.base import Likelihood, Term
from ldm.diffusion.likelihood.flow import arc, begin, check_flow, check_start, flow, prior_nll, rademacher
from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.samplers.base import Noise


class AdaptiveODE(Likelihood):
    """As ODE, by Dormand and Prince's pair of orders 5 and 4 (torchdiffeq), which keeps to a tolerance.

    The error is judged over the whole batch, so a sample's figure depends on its batch to within the tolerance.

    Args:
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance of a step.
        exact_trace: Compute the divergence exactly, a backward pass a dimension; else estimate it with probes.
        num_probes: Random probes of Hutchinson's estimate, fixed along the way; their mean is unbiased.
        start: Time to start at instead of t_min; less blurs less, but no network has seen it.
    """

    bounds = False

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        exact_trace: bool = False,
        num_probes: int = 1,
        start: float | None = None,
    ) -> None:
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not 0 < value < 1:
                raise ValueError(f"{name}={value} is no tolerance; choose one over 0 and under 1 (1e-5 is usual).")
        check_flow(num_probes, start)
        self.rtol = rtol
        self.atol = atol
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
        ends = torch.tensor(way.angle, dtype=z.dtype, device=z.device)

        def slope(angle: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return both(state[0], float(angle))

        with torch.no_grad():
            start = (z, torch.zeros_like(scale))
            route, gained = odeint(slope, start, ends, rtol=self.rtol, atol=self.atol, method="dopri5")
        yield Term("step", way.t[0], -gained[-1])
        yield Term("prior", way.t[1], prior_nll(route[-1], way.prior_std))

    def check(self, path: Path) -> None:
        super().check(path)
        check_start(self.start, path)

    def num_terms(self, path: NoisePath) -> int:
        return 3
