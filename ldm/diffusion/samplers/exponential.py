"""What the exponential integrators share: the exact linear part of the ODE, and weights for what is left.

With lambda = log(alpha / sigma) the probability-flow ODE is solved exactly but for one integral (DPM-Solver, arXiv
2206.00927, proposition 3.1; DPM-Solver++, arXiv 2211.01095, proposition 4.1). A solver replaces the model inside it by
a polynomial, and the integrals of its powers are closed forms. From t to s, h = lambda_s - lambda_t:

    x_s = keep x_t + sum_k weight(k) d^k m / d lambda^k at t,        m: x0 or the noise

    m = x0:     keep = sigma_s / sigma_t    weight(k) =  alpha_s int_0^h exp(u - h) u^k / k! du
    m = noise:  keep = alpha_s / alpha_t    weight(k) = -sigma_s int_0^h exp(h - u) u^k / k! du
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.diffusion.paths import Level

LONG = 1.0  # in lambda: the noise falls by a factor of e against the data


class Form(ABC):
    """Which of the two solutions above: m is what is taken for a polynomial."""

    @abstractmethod
    def model(self, x: Tensor, x0: Tensor, t: Level) -> Tensor:
        """m for an estimate x0 of the state x at t; all (B, ...)."""

    @abstractmethod
    def keep(self, t: Level, s: Level) -> float:
        """The share of x_t in x_s."""

    @abstractmethod
    def weight(self, k: int, t: Level, s: Level) -> float:
        """The weight of the k-th derivative of m at t in x_s."""


class DataForm(Form):
    """The polynomial is x0; any t, also where alpha is 0 as long as k is."""

    def model(self, x: Tensor, x0: Tensor, t: Level) -> Tensor:
        return x0

    def keep(self, t: Level, s: Level) -> float:
        return s.sigma / t.sigma

    def weight(self, k: int, t: Level, s: Level) -> float:
        return s.alpha * integral(k, s.lam - t.lam)


class NoiseForm(Form):
    """The polynomial is the noise; alpha must not be 0 at t."""

    def model(self, x: Tensor, x0: Tensor, t: Level) -> Tensor:
        return implied_noise(x, x0, t)

    def keep(self, t: Level, s: Level) -> float:
        return s.alpha / t.alpha

    def weight(self, k: int, t: Level, s: Level) -> float:
        return (-1.0) ** k * s.sigma * integral(k, t.lam - s.lam)


def integral(k: int, h: float) -> float:
    """int_0^h exp(u - h) u^k / k! du, for h of either sign; also h = inf where k = 0."""
    if abs(h) < 1:  # the recursion below would lose h^k there
        return sum((-1.0) ** j * math.pow(h, k + 1 + j) / math.factorial(k + 1 + j) for j in range(20))
    value = -math.expm1(-h)
    for j in range(1, k + 1):
        value = math.pow(h, j) / math.factorial(j) - value
    return value


def polynomial_weights(form: Form, t: Level, s: Level, nodes: Sequence[Level]) -> list[float]:
    """The weights in x_s of the values of m at `nodes`, where m is the polynomial through them."""
    h = s.lam - t.lam
    places = torch.tensor([(node.lam - t.lam) / h for node in nodes], dtype=torch.float64)
    moments = [form.weight(k, t, s) * math.factorial(k) / h**k for k in range(len(nodes))]
    powers = torch.stack([places**k for k in range(len(nodes))])
    weights: list[float] = torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
    return weights


def combine(x: Tensor, keep: float, weights: Sequence[float], models: Sequence[Tensor]) -> Tensor:
    """keep x + sum_j weights_j models_j, newest first; models beyond the last weight are left out."""
    moved = keep * x
    for weight, model in zip(weights, models, strict=False):
        moved.add_(model, alpha=weight)
    return moved


def first_order(x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """alpha_s x0 + sigma_s noise: DDIM, which is the first order of either form, and holds where alpha is 0 at t."""
    keep = s.sigma / t.sigma
    return torch.add(keep * x, x0, alpha=s.alpha - keep * t.alpha)


def implied_noise(x: Tensor, x0: Tensor, t: Level) -> Tensor:
    """The noise that makes x (B, ...) at t out of x0."""
    return torch.add(x / t.sigma, x0, alpha=-t.alpha / t.sigma)


def usable_orders(order: int, intervals: Sequence[tuple[Level, Level]], lower_final: bool) -> list[int]:
    """How many answers of the model each step uses: no more than there are by then.

    With `lower_final`, at the end no more than steps are left either, the one into t = 0 not counted, where the last
    of them is long: there lambda, in which x0 is taken for a polynomial, runs off to infinity and x0 hardly changes.
    """
    steps = len(intervals)
    lowered = lower_final and steps > 1 and intervals[-2][1].lam - intervals[-2][0].lam > LONG
    return [min(order, index + 1, max(steps - 1 - index, 1) if lowered else order) for index in range(steps)]


def check_order(solver: str, order: int, most: int) -> None:
    if not 1 <= order <= most:
        raise ValueError(f"order={order} is none of {solver}; choose from 1 to {most} (2 is robust under guidance).")
