"""Steps of order 1 to 3 that ask the model inside the step and remember nothing of the steps before it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, levels
from ldm.diffusion.samplers.base import Step, ask
from ldm.diffusion.samplers.exponential import Form, combine, first_order


def single_steps(
    form: Form, order: int, denoise: Denoise, path: NoisePath, x: Tensor, intervals: Sequence[tuple[Level, Level]]
) -> Iterator[Step]:
    """A whole walk: `order` calls a step, but one where alpha is 0 at t, and into t = 0."""
    inner = inner_levels(order, path, intervals)
    for index, ((t, s), between) in enumerate(zip(intervals, inner, strict=True)):
        x0 = ask(denoise, x, t.t).x0
        x = x0 if s.t == 0 else single_step(form, denoise, x, x0, t, s, between)
        yield Step(index, len(intervals), s.t, x, x0)


def inner_levels(order: int, path: NoisePath, intervals: Sequence[tuple[Level, Level]]) -> list[list[Level]]:
    """The order - 1 levels that divide each step evenly in lambda; none where lambda is infinite at an end."""
    whole = [t.alpha > 0 and s.t > 0 for t, s in intervals]
    steps = [pair for pair, finite in zip(intervals, whole, strict=True) if finite]
    logsnrs = [t.logsnr + (s.logsnr - t.logsnr) * k / order for t, s in steps for k in range(1, order)]
    with torch.no_grad():
        times = path.t_from_logsnr(torch.tensor(logsnrs, dtype=torch.float64))
    found = iter(levels(path, times))
    return [[next(found) for _ in range(order - 1)] if finite else [] for finite in whole]


def single_step(
    form: Form, denoise: Denoise, x: Tensor, x0: Tensor, t: Level, s: Level, inner: Sequence[Level]
) -> Tensor:
    """x (B, ...) at t to x at s, x0 being the estimate at t; asks the model at each of the 0 to 2 `inner` levels."""
    if not inner:
        return first_order(x, x0, t, s)
    h = s.lam - t.lam

    def estimate(weights: list[float], models: list[Tensor], at: Level) -> Tensor:
        state = combine(x, form.keep(t, at), weights, models)
        return form.model(state, ask(denoise, state, at.t).x0, at)

    def weights_with_slope(over: float, at: Level) -> list[float]:
        """The weights at `at` of m and of a second value, `over` after it, with the straight line through both."""
        share = form.weight(1, t, at) / over
        return [form.weight(0, t, at) - share, share]

    m = form.model(x, x0, t)
    m1 = estimate([form.weight(0, t, inner[0])], [m], inner[0])
    if len(inner) == 1:  # r = 1/2, so (1 - 1/(2r)) m + 1/(2r) m1 is m1
        return combine(x, form.keep(t, s), [form.weight(0, t, s)], [m1])
    m2 = estimate(weights_with_slope(h / 3, inner[1]), [m, m1], inner[1])
    return combine(x, form.keep(t, s), weights_with_slope(2 * h / 3, s), [m, m2])
