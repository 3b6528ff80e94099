"""DDPM: draws each step from the reverse of the noising process."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.shapes import affine
from ldm.diffusion.spacings import Spacing
from ldm.diffusion.variances import FixedSmall, LearnedRange, Variance


class DDPM(Sampler):
    """Stochastic, wants 100 steps or more; the reference for models with a learned variance.

    Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, eq. 7; any alpha, sigma as in arXiv 2107.00630).

    Args:
        num_steps: Number of calls of the network.
        variance: Spread of a step; left out, LearnedRange where the network has learned it, else FixedSmall.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(self, num_steps: int = 250, variance: Variance | None = None, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)
        self.variance = variance

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            denoised = ask(denoise, x, t.t)
            x = x if denoised.x_t is None else denoised.x_t
            if s.t == 0:
                x = denoised.x0
            else:
                std = self.std(path, t, s, denoised.variance)
                x = posterior_mean(x, denoised.x0, t, s) + std * noise()
            yield Step(index, len(intervals), s.t, x, denoised.x0)

    def std(self, path: NoisePath, t: Level, s: Level, raw: Tensor | None) -> Tensor:
        """Standard deviation of the step from t to s: 0-dim, or like the network's raw variance where that is used."""
        variance = self.variance or (FixedSmall() if raw is None else LearnedRange())
        start, end = (torch.tensor(level.t, dtype=torch.float64) for level in (t, s))
        return (variance.log_variance(path, start, end, raw) / 2).exp()


def posterior_mean(x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """Mean of q(x_s | x_t, x0), all (B, ...)."""
    new = -math.expm1(t.logsnr - s.logsnr)  # 1 - snr_t / snr_s: share of the noise variance at t that came after s
    return affine(t.alpha / s.alpha * (s.sigma / t.sigma) ** 2, x, s.alpha * new, x0)
