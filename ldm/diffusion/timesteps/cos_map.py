"""The times that make a straight path visit its noise levels as the cosine path does."""

import math

from torch import Tensor, atan2

from ldm.diffusion.paths import Path
from ldm.diffusion.timesteps.base import Timesteps, kept


class CosMap(Timesteps):
    """t = 1 - 1 / (tan(pi u / 2) + 1), of the density 2 / (pi - 2 pi t + 2 pi t^2).

    On RectifiedFlow logsnr is then distributed as on the cosine path under uniform times (Esser et al. 2024,
    arXiv 2403.03206, section 3.1).
    """

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        low, high = kept(share, path)
        angle = math.pi / 2 * (low + u * (high - low))
        return angle.sin() / (angle.sin() + angle.cos())

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        low, high = kept(share, path)
        return ((share(t) - low) / (high - low)).clamp(0, 1)


def share(t: Tensor) -> Tensor:
    """The u that gives t."""
    return 2 / math.pi * atan2(t, 1 - t)
