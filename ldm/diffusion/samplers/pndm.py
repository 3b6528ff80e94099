"""Pseudo numerical methods: classical multistep formulas for the noise, DDIM's step for the state."""

from collections.abc import Callable, Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, level
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.exponential import combine, first_order, implied_noise
from ldm.diffusion.spacings import Spacing

# Adams-Bashforth on an even grid, newest first
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
STEEP = 4.0  # growth of alpha on one step beyond which the step is DDIM's
RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)

# (x, x0, t, s, the noises so far with the newest in front) -> the noise of the step from t to s
Warm = Callable[[Tensor, Tensor, Level, Level, list[Tensor]], Tensor]


class PLMS(Sampler):
    """Deterministic, one call a step, second order; the sampler of early latent diffusion.

    Pseudo linear multistep (Liu et al. 2022, arXiv 2202.09778, eq. 12) as latent diffusion runs it: its first step is
    the pseudo improved Euler, then Adams-Bashforth of order 2, 3 and from then on 4. The formulas suppose even steps.

    Args:
        num_steps: Steps of the grid.
        spacing: Times visited; left out, Trailing.
    """

    obeys_moves = False  # a moved state says nothing of the points inside the first steps

    def __init__(self, num_steps: int = 50, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        def warm(x: Tensor, x0: Tensor, t: Level, s: Level, history: list[Tensor]) -> Tensor:
            if len(history) > 1:
                return adams_bashforth(history)
            there = noise_at(denoise, transfer(x, history[0], t, s), s)
            return (history[0] + there) / 2

        return pseudo(self.intervals(path), denoise, x, warm)


class PNDM(Sampler):
    """Deterministic, second order; PLMS with four calls on each of its first three steps.

    F-PNDM (Liu et al. 2022, arXiv 2202.09778, algorithm 2): pseudo Runge-Kutta (eq. 13) three times, then the pseudo
    linear multistep of order 4 (eq. 12). The formulas suppose even steps.

    Args:
        num_steps: Steps of the grid.
        spacing: Times visited; left out, Trailing.
    """

    obeys_moves = False  # as in PLMS

    def __init__(self, num_steps: int = 50, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        def warm(x: Tensor, x0: Tensor, t: Level, s: Level, history: list[Tensor]) -> Tensor:
            middle = level(path, (t.t + s.t) / 2)
            first = history[0]
            second = noise_at(denoise, transfer(x, first, t, middle), middle)
            third = noise_at(denoise, transfer(x, second, t, middle), middle)
            fourth = noise_at(denoise, transfer(x, third, t, s), s)
            return combine(first, RUNGE_KUTTA[0], RUNGE_KUTTA[1:], [second, third, fourth])

        return pseudo(self.intervals(path), denoise, x, warm)


def pseudo(intervals: list[tuple[Level, Level]], denoise: Denoise, x: Tensor, warm: Warm) -> Iterator[Step]:
    """`warm` makes the noise of the first three steps, four noises together that of the others."""
    history: list[Tensor] = []
    for index, (t, s) in enumerate(intervals):
        x0 = ask(denoise, x, t.t).x0
        history = [implied_noise(x, x0, t), *history[:3]]
        if s.t == 0:
            x = x0
        elif s.alpha > STEEP * t.alpha:  # x is almost pure noise: an error of the noise would grow by that factor
            x = first_order(x, x0, t, s)
        else:
            eps = adams_bashforth(history) if len(history) == 4 else warm(x, x0, t, s, history)
            x = transfer(x, eps, t, s)
        yield Step(index, len(intervals), s.t, x, x0)


def adams_bashforth(history: list[Tensor]) -> Tensor:
    """The noise of a step from those of the steps up to it, newest first."""
    first, *rest = ADAMS_BASHFORTH[len(history) - 1]
    return combine(history[0], first, rest, history[1:])


def transfer(x: Tensor, eps: Tensor, t: Level, s: Level) -> Tensor:
    """DDIM's step with a given noise, the transfer part of the paper."""
    keep = s.alpha / t.alpha
    return (keep * x).add(eps, alpha=s.sigma - keep * t.sigma)


def noise_at(denoise: Denoise, x: Tensor, t: Level) -> Tensor:
    return implied_noise(x, ask(denoise, x, t.t).x0, t)
