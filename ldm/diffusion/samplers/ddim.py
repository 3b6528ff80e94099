"""DDIM: keeps the noise that the estimate implies, and may replace a part of it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.spacing import Spacing


class DDIM(Sampler):
    """Denoising diffusion implicit models (Song et al. 2020, arXiv 2010.02502, eq. 12 and 16), on any path.

    Args:
        num_steps: Number of calls of the network.
        eta: Share of fresh noise: 0 is deterministic, 1 is the ancestral sampler of DDPM.
        spacing: Times visited: "trailing" starts at pure noise, "leading" short of it, "linspace" has both ends.
    """

    def __init__(self, num_steps: int = 50, eta: float = 0.0, spacing: Spacing = "trailing") -> None:
        super().__init__(num_steps, spacing)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} is no share of noise; choose from 0 (deterministic) to 1 (as DDPM).")
        self.eta = eta

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        for index, (t, s) in enumerate(self.intervals(path)):
            x0 = ask(denoise, x, t).x0
            x = x0 if s == 0 else self._move(path, x, x0, t, s, noise)
            yield Step(index, self.num_steps, float(s), x, x0)

    def _move(self, path: NoisePath, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Tensor:
        sigma = path.sigma(s)
        # eq. 16: the posterior's std is sigma_s sqrt(1 - snr_t / snr_s); expm1 keeps the digits of tiny steps
        std = self.eta * sigma * (-torch.expm1(path.logsnr(t) - path.logsnr(s))).sqrt()
        kept = (sigma.square() - std.square()).clamp(min=0).sqrt()
        x = path.alpha(s) * x0 + kept * path.implied_eps(x, x0, t)
        return x + std * noise() if self.eta > 0 else x
