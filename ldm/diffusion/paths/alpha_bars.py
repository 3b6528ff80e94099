"""Discrete paths by a formula for alpha_bar(t), of which the betas are the steps."""

import math

import torch
from torch import Tensor

from ldm.diffusion.paths.betas import check_steps
from ldm.diffusion.paths.discrete import DiscretePath


class DiscreteCosine(DiscretePath):
    """alpha_bar(t) = f(t) / f(0), f(t) = cos((t + offset) / (1 + offset) pi/2)^2.

    Nichol and Dhariwal 2021 (arXiv 2102.09672, eq. 17); the last betas are cut, as said there. Diffusers calls it
    "squaredcos_cap_v2".

    Args:
        num_steps: Number of steps T of the path (not of a sampler).
        offset: Keeps the first betas from being tiny, at least 0.
        max_beta: Largest beta, over 0; 1 lets the path end in pure noise.
    """

    def __init__(self, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> None:
        if not 0 <= offset < math.inf:
            raise ValueError(f"offset={offset} would start inside the cosine; choose 0 or more (0.008 is usual).")
        self.offset, self.max_beta = offset, max_beta
        angles = (times(num_steps) + offset) / (1 + offset) * math.pi / 2
        super().__init__(steps_of(angles.cos().square(), max_beta))


class SigmoidAlphaBar(DiscretePath):
    """alpha_bar(t) falls along a sigmoid (Jabri et al. 2022, arXiv 2212.11972; its code is in arXiv 2301.10972).

    alpha_bar(t) = (S(z_end) - S(z)) / (S(z_end) - S(z_start)), with z = z_start + t (z_end - z_start) and
    S(z) = sigmoid(z / tau). SigmoidBetas, diffusers' "sigmoid", is another path.

    Args:
        num_steps: Number of steps T of the path (not of a sampler).
        z_start: Where on the sigmoid the data are.
        z_end: Where on it the noise is, over z_start.
        tau: Temperature of the sigmoid, over 0; small ones stay longer at both ends.
        max_beta: Largest beta, over 0; 1 lets the path end in pure noise.
    """

    def __init__(
        self,
        num_steps: int = 1000,
        z_start: float = -3.0,
        z_end: float = 3.0,
        tau: float = 1.0,
        max_beta: float = 0.999,
    ) -> None:
        if not -math.inf < z_start < z_end < math.inf:
            raise ValueError(
                f"z_start={z_start} and z_end={z_end} make no falling curve; choose z_start < z_end (-3 and 3)."
            )
        if not 0 < tau < math.inf:
            raise ValueError(f"tau={tau} is no temperature; choose a number over 0 (1 is usual).")
        self.z_start, self.z_end, self.tau, self.max_beta = z_start, z_end, tau, max_beta
        share = ((z_start + times(num_steps) * (z_end - z_start)) / tau).sigmoid()
        super().__init__(steps_of((share[-1] - share) / (share[-1] - share[0]), max_beta))


class Laplace(DiscretePath):
    """logsnr follows a Laplace law: logsnr(t) = mu - b sgn(1/2 - t) log(1 - 2 |t - 1/2|).

    Hang et al. 2024 (arXiv 2407.03297), who train with mu = 0 and b = 0.5, so mostly where data and noise are even.
    Its tails are short: b = 0.5 gives the first of 1000 steps a sigma of 0.2, from where a sampler has to jump to
    the data. The default, b = 2, has the tails of the cosine path, and can be sampled as it is.

    Args:
        num_steps: Number of steps T of the path (not of a sampler).
        mu: Mean of logsnr.
        b: Spread of logsnr, over 0.
        max_beta: Largest beta, over 0; 1 lets the path end in pure noise.
    """

    def __init__(self, num_steps: int = 1000, mu: float = 0.0, b: float = 2.0, max_beta: float = 0.999) -> None:
        if not math.isfinite(mu):
            raise ValueError(f"mu={mu} is no level of noise; choose a finite number (0 is usual).")
        if not 0 < b < math.inf:
            raise ValueError(f"b={b} is no spread of noise levels; choose a number over 0.")
        self.mu, self.b, self.max_beta = mu, b, max_beta
        t = times(num_steps)
        logsnr = mu - b * (0.5 - t).sign() * torch.log1p(-2 * (t - 0.5).abs())
        super().__init__(steps_of(logsnr.sigmoid(), max_beta))


def times(num_steps: int) -> Tensor:
    """0, 1/T, ..., 1 in float64."""
    check_steps(num_steps)
    return torch.arange(num_steps + 1, dtype=torch.float64) / num_steps


def steps_of(alpha_bars: Tensor, max_beta: float) -> Tensor:
    """Betas (T,) of alpha_bar at 0, 1/T, ..., 1, cut at max_beta."""
    if not 0 < max_beta <= 1:
        raise ValueError(f"max_beta={max_beta} is no share of noise; choose over 0 and at most 1 (0.999 is usual).")
    return (1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(max=max_beta)
