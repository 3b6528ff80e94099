"""More training in the middle of the path or at its ends, with every time still well visited."""

import math

from torch import Tensor, where, zeros_like

from ldm.diffusion.paths import Path
from ldm.diffusion.timesteps.base import Timesteps, kept

LARGEST = 2 / (math.pi - 2)
HALVINGS = 45  # of [0, 1]: the inverse is found to 3e-14


class Mode(Timesteps):
    """t = u - scale (sin^2(pi u / 2) - u): mode sampling with heavy tails.

    Esser et al. 2024 (arXiv 2403.03206), section 3.1, with u turned around so that t rises with it.

    Args:
        scale: Over 0 trains the middle more often, under 0 the ends, 0 is uniform; from -1 to 2 / (pi - 2) = 1.75,
            between which t rises with u. 1.29 is the best of the paper.
    """

    def __init__(self, scale: float = 1.29) -> None:
        if not -1 <= scale <= LARGEST:
            raise ValueError(f"scale={scale} is no distribution of times; choose one from -1 to {LARGEST:.4f}.")
        self.scale = scale

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        low, high = kept(self._share, path)
        return self._time(low + u * (high - low)).clamp(0, 1)

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        low, high = kept(self._share, path)
        return ((self._share(t) - low) / (high - low)).clamp(0, 1)

    def _time(self, u: Tensor) -> Tensor:
        return u - self.scale * ((math.pi / 2 * u).sin().square() - u)

    def _share(self, t: Tensor) -> Tensor:
        """The inverse of `_time`, which has no closed form: by bisection."""
        share, step = zeros_like(t), 0.5
        for _ in range(HALVINGS):
            share = where(self._time(share + step) <= t, share + step, share)
            step /= 2
        return share
