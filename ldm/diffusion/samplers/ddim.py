"""DDIM: keeps the noise that the estimate implies, and may replace a part of it."""

import math
from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, level
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.shapes import affine
from ldm.diffusion.spacings import Spacing


class DDIM(Sampler):
    """Deterministic, good from 25 steps on, on any path; with eta it adds noise. The usual first choice.

    Denoising diffusion implicit models (Song et al. 2020, arXiv 2010.02502, eq. 12 and 16).

    Args:
        num_steps: Number of calls of the network.
        eta: Share of fresh noise: 0 is deterministic, 1 is the ancestral sampler of DDPM.
        spacing: Times visited; left out, Trailing.
        end_at_data: The last step returns x0 (alpha = 1). If not it keeps the noise of the path's first level
            (alpha_bar_0), as CompVis and Stable Diffusion do (`set_alpha_to_one=False`).
    """

    def __init__(
        self, num_steps: int = 50, eta: float = 0.0, spacing: Spacing | None = None, end_at_data: bool = True
    ) -> None:
        super().__init__(num_steps, spacing)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} is no share of noise; choose from 0 (deterministic) to 1 (as DDPM).")
        self.eta = eta
        self.end_at_data = end_at_data

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            x, x0 = look(denoise, x, t.t)
            if s.t > 0:
                x = self.move(x, x0, t, s, noise)
            else:
                x = x0 if self.end_at_data else self.move(x, x0, t, level(path, path.t_min), noise)
            yield Step(index, len(intervals), s.t, x, x0)

    def move(self, x: Tensor, x0: Tensor, t: Level, s: Level, noise: Noise) -> Tensor:
        """x (B, ...) at t to x at s < t."""
        # eq. 16: the posterior's std is sigma_s sqrt(1 - snr_t / snr_s); expm1 keeps the digits of tiny steps
        std = self.eta * s.sigma * math.sqrt(-math.expm1(t.logsnr - s.logsnr))
        kept = math.sqrt(max(s.sigma**2 - std**2, 0)) / t.sigma
        x = affine(kept, x, s.alpha - kept * t.alpha, x0)  # alpha_s x0 + sqrt(sigma_s^2 - std^2) eps
        return x + std * noise() if self.eta > 0 else x
