"""The classical Runge-Kutta method on the probability-flow ODE."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, level
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.euler import velocity
from ldm.diffusion.spacings import Spacing


class RK4(Sampler):
    """Deterministic, fourth order, four calls a step; for smooth ODEs and as a reference to others.

    The classical Runge-Kutta method of fixed step in t, on the ODE of Song et al. 2021 (arXiv 2011.13456, eq. 13). Half
    steps fall between the steps of a discrete path, whose network then hears fractions. The step into t = 0 returns x0.

    Args:
        num_steps: Number of steps; the network is called 4 num_steps - 3 times.
        spacing: Times visited; left out, Trailing.
    """

    obeys_moves = False  # a step is a mean of four slopes, and a state that moves in between has none

    def __init__(self, num_steps: int = 20, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            x0 = ask(denoise, x, t.t).x0
            x = x0 if s.t == 0 else self.move(denoise, path, x, x0, t, s)
            yield Step(index, len(intervals), s.t, x, x0)

    def move(self, denoise: Denoise, path: NoisePath, x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
        """x (B, ...) at t, where the estimate is x0, to x at s < t, s > 0."""
        span, middle = s.t - t.t, level(path, (t.t + s.t) / 2)

        def slope(there: Tensor, at: Level) -> Tensor:
            return velocity(there, ask(denoise, there, at.t).x0, at)

        one = velocity(x, x0, t)
        two = slope(x.add(one, alpha=span / 2), middle)
        three = slope(x.add(two, alpha=span / 2), middle)
        four = slope(x.add(three, alpha=span), s)
        return x.add(one + 2 * two + 2 * three + four, alpha=span / 6)
