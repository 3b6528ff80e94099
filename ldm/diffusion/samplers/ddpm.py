"""DDPM: draws each step from the reverse of the noising process."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.spacing import Spacing


class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, eq. 7; any alpha, sigma as in arXiv 2107.00630).

    Args:
        num_steps: Number of calls of the network.
        variance: Spread of a step: "small" is exact for data at one point, "large" for data of unit variance.
        spacing: Times visited: "trailing" starts at pure noise, "leading" short of it, "linspace" has both ends.
    """

    def __init__(
        self,
        num_steps: int = 250,
        variance: Literal["small", "large"] = "small",
        spacing: Spacing = "trailing",
    ) -> None:
        super().__init__(num_steps, spacing)
        if variance not in ("small", "large"):
            raise ValueError(f"variance={variance!r} is unknown; choose small or large.")
        self.variance = variance

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        for index, (t, s) in enumerate(self.intervals(path)):
            x0 = ask(denoise, x, t).x0
            x = x0 if s == 0 else self._move(path, x, x0, t, s, noise)
            yield Step(index, self.num_steps, float(s), x, x0)

    def _move(self, path: NoisePath, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Noise) -> Tensor:
        alpha_t, sigma_t, alpha_s, sigma_s = path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s)
        # 1 - snr_t / snr_s: which part of the noise variance at t came in between s and t
        new = -torch.expm1(path.logsnr(t) - path.logsnr(s))
        mean = (alpha_t / alpha_s) * (sigma_s / sigma_t).square() * x + alpha_s * new * x0
        spread = sigma_s if self.variance == "small" else sigma_t
        return mean + spread * new.sqrt() * noise()
