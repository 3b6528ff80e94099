"""Euler's step down too far, and noise back up to where it should have ended."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, walk
from ldm.diffusion.spacings import Spacing


class EulerAncestral(Sampler):
    """Stochastic, lively pictures from 20 steps on; what web interfaces call "Euler a".

    In the variable x / alpha with noise sigma / alpha, as in the sampler of that name of k-diffusion: a step of the ODE
    goes down to sigma_down, noise of sigma_up goes back up, sigma_down^2 + sigma_up^2 = (sigma_s / alpha_s)^2. The
    ODE step in that variable is DDIM's, so up to eta = 1, and with s_noise = 1, this is DDIM(eta) on every path.

    Args:
        num_steps: Number of calls of the network.
        eta: Share of fresh noise: 0 is deterministic, 1 as in DDPM; over 1, up to all of the noise is fresh.
        s_noise: Standard deviation of the fresh noise.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(
        self, num_steps: int = 50, eta: float = 1.0, s_noise: float = 1.0, spacing: Spacing | None = None
    ) -> None:
        super().__init__(num_steps, spacing)
        if not 0 <= eta < math.inf:
            raise ValueError(f"eta={eta} is no share of noise; choose 0 (deterministic) or more (1 is usual).")
        if not 0 <= s_noise < math.inf:
            raise ValueError(f"s_noise={s_noise} is no standard deviation; choose about 1.")
        self.eta = eta
        self.s_noise = s_noise

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        return walk(self.intervals(path), denoise, x, partial(self.move, noise=noise))

    def move(self, x: Tensor, x0: Tensor, t: Level, s: Level, noise: Noise) -> Tensor:
        """x (B, ...) at t to x at s < t."""
        there = math.exp(-s.lam)  # sigma / alpha; infinite at t where alpha is 0, hence the snr ratio below
        up = min(there, self.eta * there * math.sqrt(-math.expm1(t.logsnr - s.logsnr)))
        down = math.sqrt(max(there**2 - up**2, 0.0))
        kept = s.alpha * down / t.sigma  # the ODE step: alpha_s (x0 + down eps), eps = (x - alpha_t x0) / sigma_t
        x = torch.add(kept * x, x0, alpha=s.alpha - kept * t.alpha)
        return x.add(noise(), alpha=s.alpha * up * self.s_noise) if up > 0 else x
