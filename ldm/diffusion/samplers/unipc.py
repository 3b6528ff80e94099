"""UniPC: each answer of the model first mends the step that led to it."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.exponential import DataForm, check_order, combine, polynomial_weights, usable_orders
from ldm.diffusion.spacings import Spacing

FORM = DataForm()
VARIANTS = ("bh1", "bh2")


class UniPC(Sampler):
    """Deterministic, for the fewest steps (5 to 15): a predictor and a corrector for one call a step.

    Zhao et al. 2023, arXiv 2302.04867, algorithms 1 (corrector) and 2 (predictor), in x0. UniPC of order p
    converges with order p + 1. Each Step holds the predicted state; the next one mends it before it goes on.

    Args:
        num_steps: Number of calls of the network.
        order: 1 to 3.
        variant: B(h) of section 3.1: bh1 is h, bh2 is 1 - exp(-h). It matters to the predictor of order 2 and the
            corrector of order 1, whose weight 1/2 needs no solving; the others come out the same.
        corrector: Mend each step with the answer at its end; without it, order p converges with order p.
        lower_order_final: End with order 2, then 1, where the last step before t = 0 is long (over 1 in lambda).
        spacing: Times visited; left out, Trailing.
    """

    obeys_moves = False  # the corrector takes the step into a moved state again

    def __init__(
        self,
        num_steps: int = 15,
        order: int = 2,
        variant: str = "bh2",
        corrector: bool = True,
        lower_order_final: bool = True,
        spacing: Spacing | None = None,
    ) -> None:
        super().__init__(num_steps, spacing)
        check_order("UniPC", order, 3)
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is no B(h) of UniPC; choose bh1 or bh2 (bh2 is usual).")
        self.order = order
        self.variant = variant
        self.corrector = corrector
        self.lower_order_final = lower_order_final

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        orders = usable_orders(self.order, intervals, self.lower_order_final)
        nodes = [[level for level, _ in intervals[i::-1][:order] if level.alpha > 0] for i, order in enumerate(orders)]
        history: list[Tensor] = []
        before = x
        for index, (t, s) in enumerate(intervals):
            x0 = ask(denoise, x, t.t).x0
            history = [x0, *history[: self.order]]
            if self.corrector and index > 0 and s.t > 0:
                start = intervals[index - 1][0]
                x = combine(before, t.sigma / start.sigma, self.corrected(start, t, nodes[index - 1]), history)
            before = x
            x = x0 if s.t == 0 else combine(x, s.sigma / t.sigma, self.predicted(t, s, nodes[index]), history)
            yield Step(index, len(intervals), s.t, x, x0)

    def predicted(self, t: Level, s: Level, nodes: list[Level]) -> list[float]:
        """The weights in x_s of the estimates at `nodes`, the newest, at t, first (UniP)."""
        whole = FORM.weight(0, t, s)
        if len(nodes) <= 1:
            return [whole]
        if len(nodes) == 2:
            share = self.scale(t, s) / 2 * (s.lam - t.lam) / (t.lam - nodes[1].lam)
            return [whole + share, -share]
        return polynomial_weights(FORM, t, s, nodes)

    def corrected(self, t: Level, s: Level, nodes: list[Level]) -> list[float]:
        """The weights in x_s of the estimate at s and of those at `nodes`, newest first (UniC)."""
        whole = FORM.weight(0, t, s)
        if not nodes:  # lambda is infinite at t
            return [0.0, whole]
        if len(nodes) == 1:
            share = self.scale(t, s) / 2
            return [share, whole - share]
        return polynomial_weights(FORM, t, s, [s, *nodes])

    def scale(self, t: Level, s: Level) -> float:
        """alpha_s B(h)."""
        return s.alpha * (s.lam - t.lam) if self.variant == "bh1" else FORM.weight(0, t, s)
