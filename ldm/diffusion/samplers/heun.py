"""Heun's method with churn, the sampler of EDM."""

import math
from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, level, level_at
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.euler import velocity
from ldm.diffusion.samplers.renoise import renoise
from ldm.diffusion.spacings import Spacing


class Heun(Sampler):
    """Second order, two calls of the network a step; EDM's own sampler, and s_churn makes it stochastic.

    Karras et al. 2022, arXiv 2206.00364, algorithm 2 (algorithm 1 without churn), in t of the path: on the EDM path,
    where sigma runs with t, it is theirs. Their sigma is our sigma / alpha. Churn goes up by the path's own noising,
    and never above t_max, where no network is trained; theirs does where s_tmax allows it. The step into t = 0
    returns x0.

    Args:
        num_steps: Number of steps; the network is called 2 num_steps - 1 times.
        s_churn: Amount of noise added in all, in units of their S_churn; 0 is deterministic.
        s_tmin: Lowest sigma / alpha at which noise is added.
        s_tmax: Highest sigma / alpha at which noise is added.
        s_noise: Standard deviation of the noise that is added; a little over 1 makes up for a network's smoothing.
        spacing: Times visited; left out, Trailing.
    """

    obeys_moves = False  # a step is a mean of two slopes, and a state that moves in between has none

    def __init__(
        self,
        num_steps: int = 25,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = math.inf,
        s_noise: float = 1.0,
        spacing: Spacing | None = None,
    ) -> None:
        super().__init__(num_steps, spacing)
        if not 0 <= s_churn < math.inf:
            raise ValueError(f"s_churn={s_churn} adds no noise; choose 0 (deterministic) or more (10 to 80 is usual).")
        if not 0 <= s_tmin <= s_tmax:
            raise ValueError(f"s_tmin={s_tmin} and s_tmax={s_tmax} hold no noise level; choose 0 <= s_tmin <= s_tmax.")
        if not 0 <= s_noise < math.inf:
            raise ValueError(f"s_noise={s_noise} is no standard deviation; choose about 1 (1.003 to 1.007 is usual).")
        self.s_churn = s_churn
        self.s_tmin = s_tmin
        self.s_tmax = s_tmax
        self.s_noise = s_noise

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            hat = self.churned(path, t, len(intervals))
            if hat.t > t.t:
                x = renoise(x, t, hat, noise, self.s_noise)
            x0 = ask(denoise, x, hat.t).x0
            x = x0 if s.t == 0 else self.move(denoise, x, x0, hat, s)
            yield Step(index, len(intervals), s.t, x, x0)

    def churned(self, path: NoisePath, t: Level, num_steps: int) -> Level:
        """Their t_hat: the level whose sigma / alpha is 1 + gamma times that at t, or t itself."""
        ratio = math.exp(-t.lam)
        if self.s_churn == 0 or not self.s_tmin <= ratio <= self.s_tmax or t.t >= path.t_max:
            return t
        gamma = min(self.s_churn / num_steps, math.sqrt(2) - 1)
        hat = level_at(path, t.lam - math.log1p(gamma))
        return hat if hat.t <= path.t_max else level(path, path.t_max)

    def move(self, denoise: Denoise, x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
        """x (B, ...) at t, where the estimate is x0, to x at s < t, s > 0."""
        slope = velocity(x, x0, t)
        there = x.add(slope, alpha=s.t - t.t)
        slope = slope + velocity(there, ask(denoise, there, s.t).x0, s)
        return x.add(slope, alpha=(s.t - t.t) / 2)
