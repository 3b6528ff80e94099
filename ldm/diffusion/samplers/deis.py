"""DEIS: Adams-Bashforth in time under the exact linear part."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.samplers.exponential import (
    check_order,
    combine,
    first_order,
    implied_noise,
    usable_orders,
)
from ldm.diffusion.spacings import Linspace, Spacing

POINTS = 24  # of the quadrature of a step


class DEIS(Sampler):
    """Deterministic, good from 10 steps on without guidance: multistep on the noise, one call a step.

    tAB-DEIS (Zhang and Chen 2022, arXiv 2204.13902, eq. 14 and 15): the noise is the polynomial in t through its last
    `order` values, integrated against the path's exact weight by quadrature. Order k is the paper's tAB(k-1), order 1
    is DDIM. (rhoAB takes a polynomial in sigma / alpha; diffusers' DEIS one in its logarithm.)

    Args:
        num_steps: Number of calls of the network.
        order: 1 to 4.
        lower_order_final: End with order 2, then 1, where the last step before t = 0 is long (over 1 in lambda). Of
            no use to a polynomial in t.
        spacing: Times visited; left out, Linspace, which suits it better than Trailing.
    """

    def __init__(
        self, num_steps: int = 20, order: int = 3, lower_order_final: bool = False, spacing: Spacing | None = None
    ) -> None:
        super().__init__(num_steps, Linspace() if spacing is None else spacing)
        check_order("DEIS", order, 4)
        self.order = order
        self.lower_order_final = lower_order_final

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        orders = usable_orders(self.order, intervals, self.lower_order_final)
        plan = step_weights(path, intervals, orders)
        history: list[Tensor] = []
        for index, ((t, s), weights) in enumerate(zip(intervals, plan, strict=True)):
            x, x0 = look(denoise, x, t.t)
            history = [implied_noise(x, x0, t), *history[: self.order - 1]]
            if s.t == 0:
                x = x0
            elif t.alpha == 0:
                x = first_order(x, x0, t, s)
            else:
                x = combine(x, s.alpha / t.alpha, weights, history)
            yield Step(index, len(intervals), s.t, x, x0)


def step_weights(path: NoisePath, intervals: list[tuple[Level, Level]], orders: list[int]) -> list[list[float]]:
    """The weights in x_s of the noises so far, newest first: -sigma_s int_0^h exp(h - u) L_j(t(lambda_t + u)) du.

    L_j is the polynomial in t that is 1 at the time of the j-th noise and 0 at the others. Steps whose lambda is
    infinite at an end need no weights and have weights without meaning.
    """
    places, shares = gauss_legendre(POINTS)
    starts, ends = torch.tensor([[t.lam, s.lam] for t, s in intervals], dtype=torch.float64).unbind(1)
    u = (ends - starts)[:, None] * places  # (num_steps, POINTS)
    inside = path.t_from_logsnr(2 * (starts[:, None] + u)).detach()
    sigmas = torch.tensor([s.sigma for _, s in intervals], dtype=torch.float64)
    density = -sigmas[:, None] * (ends - starts)[:, None] * shares * ((ends - starts)[:, None] - u).exp()
    plan = []
    for index, order in enumerate(orders):
        times = [level.t for level, _ in intervals[index::-1][:order]]
        plan.append([float((density[index] * lagrange(inside[index], times, j)).sum()) for j in range(order)])
    return plan


def lagrange(t: Tensor, times: list[float], j: int) -> Tensor:
    """The polynomial that is 1 at times_j and 0 at the other times, at each t."""
    value = torch.ones_like(t)
    for other in [time for k, time in enumerate(times) if k != j]:
        value = value * (t - other) / (times[j] - other)
    return value


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights of the quadrature on [0, 1], float64 (count,) (Golub and Welsch 1969)."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    roots, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (roots + 1) / 2, vectors[0].square()
