"""A step of the reverse SDE, and Langevin steps that mend its law."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.spacings import Spacing


class PredictorCorrector(Sampler):
    """Stochastic, for models of the score: a reverse-SDE step, then Langevin steps that mend the law.

    Song et al. 2021, arXiv 2011.13456, appendices E and G. Predictor: reverse diffusion, x_s = (2 - a) x_t + b score
    + sqrt(b) z, where noising is x_t = a x_s + sqrt(b) z. Corrector: x + e score + sqrt(2 e) z at s, with
    e = 2 (snr |z| / |score|)^2. Both norms are put in as what they are on average for noise, |score| = |z| / sigma,
    since theirs are means over the batch and an image is not to depend on its batch: e = 2 (snr sigma)^2.

    Args:
        num_steps: Number of predictor steps.
        snr: Signal-to-noise ratio r of a Langevin step; 0.01 to 0.2.
        corrections: Langevin steps after each predictor step but the last; each calls the network once.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(
        self, num_steps: int = 250, snr: float = 0.16, corrections: int = 1, spacing: Spacing | None = None
    ) -> None:
        super().__init__(num_steps, spacing)
        if not 0 < snr < 1:
            raise ValueError(f"snr={snr} makes no Langevin step; choose between 0 and 1 (0.16 is usual).")
        if corrections < 0:
            raise ValueError(f"corrections={corrections} is less than none; choose 0 (no corrector) or more.")
        self.snr = snr
        self.corrections = corrections

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            x, x0 = look(denoise, x, t.t)
            if s.t == 0:
                x = x0
            else:
                x = reverse_diffusion(x, x0, t, s, noise)
                for _ in range(self.corrections):
                    x, estimate = look(denoise, x, s.t)
                    x = langevin(x, estimate, s, 4 * self.snr**2, noise)
            yield Step(index, len(intervals), s.t, x, x0)


def reverse_diffusion(x: Tensor, x0: Tensor, t: Level, s: Level, noise: Noise) -> Tensor:
    """x (B, ...) at t to x at s < t, s > 0: the predictor (arXiv 2011.13456, appendix E)."""
    kept = t.alpha / s.alpha
    share = -math.expm1(t.logsnr - s.logsnr)  # of the noise variance at t, what came after s: b = share sigma_t^2
    x = torch.add((2 - kept - share) * x, x0, alpha=share * t.alpha)
    return x.add(noise(), alpha=t.sigma * math.sqrt(share))


def langevin(x: Tensor, x0: Tensor, t: Level, step_size: float, noise: Noise) -> Tensor:
    """x + e / 2 score + sqrt(e) z with e = step_size sigma^2: one step that leaves the law at t about as it is."""
    x = torch.add((1 - step_size / 2) * x, x0, alpha=step_size / 2 * t.alpha)
    return x.add(noise(), alpha=t.sigma * math.sqrt(step_size))
