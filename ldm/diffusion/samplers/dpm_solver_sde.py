"""SDE-DPM-Solver++: the same integrators on the reverse SDE."""

import math
from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.samplers.dpm_solver_pp import slope_weights
from ldm.diffusion.samplers.exponential import check_order, combine
from ldm.diffusion.spacings import Spacing


class SDEDPMSolverPP(Sampler):
    """Stochastic, good from 25 steps on ("DPM++ 2M SDE"): fresh noise mends early errors.

    Lu et al. 2022, arXiv 2211.01095: their SDE-DPM-Solver++1 and ++2M, the exact solution of the reverse SDE whose x0
    is held, or taken for a straight line in lambda. Order 1 is DDIM with eta = 1.

    Args:
        num_steps: Number of calls of the network.
        order: 1 or 2.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(self, num_steps: int = 50, order: int = 2, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)
        check_order("SDEDPMSolverPP", order, 2)
        self.order = order

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        plan = [self.coefficients(intervals, index) for index in range(len(intervals))]
        history: list[Tensor] = []
        for index, ((t, s), (keep, weights, std)) in enumerate(zip(intervals, plan, strict=True)):
            x, x0 = look(denoise, x, t.t)
            history = [x0, *history[: self.order - 1]]
            x = x0 if s.t == 0 else combine(x, keep, weights, history).add_(noise(), alpha=std)
            yield Step(index, len(intervals), s.t, x, x0)

    def coefficients(self, intervals: list[tuple[Level, Level]], index: int) -> tuple[float, list[float], float]:
        """The factor of x_t in x_s, those of the estimates so far, newest first, and the noise's std: step `index`."""
        t, s = intervals[index]
        if s.t == 0:
            return 0.0, [1.0], 0.0
        h = s.lam - t.lam
        new = -math.expm1(-2 * h)  # 1 - exp(-2h), the share of the noise that is fresh
        keep, whole, std = s.sigma / t.sigma * math.exp(-h), s.alpha * new, s.sigma * math.sqrt(new)
        before = intervals[index - 1][0]
        if index == 0 or self.order == 1 or before.alpha == 0:
            return keep, [whole], std
        return keep, slope_weights(whole, t, s, before), std
