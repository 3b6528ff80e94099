"""DPM-Solver++: exponential integrators on x0, which guidance and clipping leave in the range of the data."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.samplers.exponential import (
    DataForm,
    check_order,
    combine,
    polynomial_weights,
    usable_orders,
)
from ldm.diffusion.samplers.single_step import single_steps
from ldm.diffusion.spacings import Spacing

FORM = DataForm()


class DPMSolverPP(Sampler):
    """Deterministic, good from 15 steps on, under guidance too: "2M", the usual choice for few steps.

    Lu et al. 2022, arXiv 2211.01095: 2M is algorithm 2, 2S algorithm 1 with r = 1/2. 3M has the weights of the
    parabola through the last three x0, exactly: the third order of the authors' code takes half of its curvature,
    which leaves it of second order. 3S is algorithm 2 of arXiv 2206.00927 in x0.

    Args:
        num_steps: Steps of the grid: one call of the network each, or `order` each where not multistep.
        order: 1 to 3.
        multistep: Use the answers of the steps before (2M, 3M) in place of calls inside the step (2S, 3S).
        lower_order_final: Multistep: end with order 2, then 1, where the last step before t = 0 is long (over 1 in
            lambda), as under Linspace: three times as accurate there at 10 steps. The step into t = 0 returns x0.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(
        self,
        num_steps: int = 20,
        order: int = 2,
        multistep: bool = True,
        lower_order_final: bool = True,
        spacing: Spacing | None = None,
    ) -> None:
        super().__init__(num_steps, spacing)
        check_order("DPMSolverPP", order, 3)
        self.order = order
        self.multistep = multistep
        self.lower_order_final = lower_order_final

    @property
    def obeys_moves(self) -> bool:
        return self.multistep  # a moved state says nothing of the points inside a single step

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        if self.multistep:
            return self.multisteps(denoise, x, intervals)
        return single_steps(FORM, self.order, denoise, path, x, intervals)

    def multisteps(self, denoise: Denoise, x: Tensor, intervals: list[tuple[Level, Level]]) -> Iterator[Step]:
        """A whole walk, one call a step."""
        orders = usable_orders(self.order, intervals, self.lower_order_final)
        plan = [
            (s.sigma / t.sigma, step_weights(intervals, index, orders[index])) for index, (t, s) in enumerate(intervals)
        ]
        history: list[Tensor] = []
        for index, ((t, s), (keep, weights)) in enumerate(zip(intervals, plan, strict=True)):
            x, x0 = look(denoise, x, t.t)
            history = [x0, *history[: self.order - 1]]
            x = x0 if s.t == 0 else combine(x, keep, weights, history)
            yield Step(index, len(intervals), s.t, x, x0)


def step_weights(intervals: list[tuple[Level, Level]], index: int, order: int) -> list[float]:
    """The weights in x_s of the last `order` estimates, newest first, on step `index`."""
    t, s = intervals[index]
    if s.t == 0:
        return [1.0]
    nodes = [level for level, _ in intervals[index::-1][:order] if level.alpha > 0]
    whole = FORM.weight(0, t, s)
    if len(nodes) <= 1:
        return [whole]
    if len(nodes) == 2:
        return slope_weights(whole, t, s, nodes[1])
    return polynomial_weights(FORM, t, s, nodes)


def slope_weights(whole: float, t: Level, s: Level, before: Level) -> list[float]:
    """`whole` times the weights of (1 + 1/(2r)) x0 - 1/(2r) x0_before: the line through both, half way to s."""
    share = (s.lam - t.lam) / (t.lam - before.lam) / 2  # 1 / (2r)
    return [whole * (1 + share), -whole * share]
