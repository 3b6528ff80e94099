"""More training in the middle of the path."""

import math

from torch import Tensor, logit, sigmoid

from ldm.diffusion.paths import Path
from ldm.diffusion.timesteps.base import Timesteps, kept, normal_cdf, normal_quantile


class LogitNormal(Timesteps):
    """t = sigmoid(mean + std z), z standard normal (Esser et al. 2024, arXiv 2403.03206, section 3.1).

    Args:
        mean: Mean of logit(t); over 0 trains noisier times more often.
        std: Standard deviation of logit(t), over 0; smaller gathers the times closer together.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        check_normal(mean, std)
        self.mean = mean
        self.std = std

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        low, high = kept(self._share, path)
        return sigmoid(self.mean + self.std * normal_quantile(low + u * (high - low)))

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        low, high = kept(self._share, path)
        return ((self._share(t) - low) / (high - low)).clamp(0, 1)

    def _share(self, t: Tensor) -> Tensor:
        return normal_cdf((logit(t) - self.mean) / self.std)


def check_normal(mean: float, std: float) -> None:
    if not math.isfinite(mean):
        raise ValueError(f"mean={mean} puts every time at one end; choose a finite number (0 is usual).")
    if not 0 < std < math.inf:
        raise ValueError(f"std={std} is no spread of times; choose a finite number over 0 (1 is usual).")
