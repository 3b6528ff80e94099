"""DDIM run upwards: from data to the noise that gives them."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath, levels
from ldm.diffusion.samplers.base import Step, ask
from ldm.diffusion.spacings import Spacing, Trailing


class DDIMInversion:
    """Encodes data as the noise from which DDIM (eta = 0) makes them again, over the same times.

    Song et al. 2020, arXiv 2010.02502, section 4.3 and eq. 14; Dhariwal and Nichol 2021, arXiv 2105.05233, appendix F:
    x_s = alpha_s x0 + sigma_s eps with s > t and the estimates at t. No network can be asked at t = 0, so the
    data are taken to be at the lowest time of the grid, an error of the size of sigma^2 there.

    Args:
        num_steps: Number of times of the sampler's grid over 0; the network is called num_steps - 1 times.
        spacing: Times visited; left out, Trailing. Linspace starts nearest to data.
    """

    def __init__(self, num_steps: int = 100, spacing: Spacing | None = None) -> None:
        if num_steps < 2:
            raise ValueError(f"num_steps={num_steps} leaves no step from data to noise; choose at least 2.")
        self.num_steps = num_steps
        self.spacing = Trailing() if spacing is None else spacing

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor) -> Iterator[Step]:
        """Yield each step from data x (B, ...) up; the last one ends at the highest time of the grid, usually t_max."""
        upwards = levels(path, self.spacing.times(self.num_steps, path).flip(0))
        for index, (t, s) in enumerate(pairwise(upwards)):
            x0 = ask(denoise, x, t.t).x0
            kept = s.sigma / t.sigma
            x = torch.add(kept * x, x0, alpha=s.alpha - kept * t.alpha)  # alpha_s x0 + sigma_s eps
            yield Step(index, len(upwards) - 1, s.t, x, x0)

    def invert(self, denoise: Denoise, path: NoisePath, x: Tensor) -> Tensor:
        """The eps (B, ...) whose `path.start(eps)` a sampler is to start from."""
        for step in self.steps(denoise, path, x):
            x = step.x
        return x / path.prior_std
