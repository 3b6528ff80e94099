"""Back up: the path's own noising from one of its times to a noisier one."""

import math

from torch import Tensor

from ldm.diffusion.paths import Level
from ldm.diffusion.samplers.base import Noise


def renoise(x: Tensor, s: Level, t: Level, noise: Noise, std: float = 1.0) -> Tensor:
    """A draw of q(x_t | x_s) for x (B, ...) at s < t: what is kept of x, and noise, which `std` scales.

    x_t = a x_s + sqrt(sigma_t^2 - a^2 sigma_s^2) z with a = alpha_t / alpha_s (arXiv 2107.00630, appendix A).
    """
    kept = t.alpha / s.alpha
    added = max(t.sigma**2 - (kept * s.sigma) ** 2, 0.0)
    return (kept * x).add(noise(), alpha=std * math.sqrt(added))
