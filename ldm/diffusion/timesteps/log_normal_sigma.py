"""EDM's law: the noise level itself is log-normal."""

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.timesteps.base import Timesteps, normal_cdf, normal_quantile
from ldm.diffusion.timesteps.logit_normal import check_normal


class LogNormalSigma(Timesteps):
    """ln(sigma / alpha) is normal (Karras et al. 2022, arXiv 2206.00364, table 1), cut to the path's noise levels.

    On RectifiedFlow, where ln(sigma / alpha) = logit(t), it is LogitNormal.

    Args:
        mean: Mean of ln(sigma / alpha), P_mean of the paper; it belongs to data of a standard deviation near 0.5.
        std: Its standard deviation, P_std of the paper, over 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        check_normal(mean, std)
        self.mean = mean
        self.std = std

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        path = noise_path(path)
        low, high = self._ends(path)
        with torch.no_grad():  # a path that learns gives times all the same
            return path.t_from_logsnr(-2 * (self.mean + self.std * normal_quantile(low + u * (high - low))))

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        path = noise_path(path)
        low, high = self._ends(path)
        return ((self._share(t, path) - low) / (high - low)).clamp(0, 1)

    def check(self, path: Path) -> None:
        low, high = self._ends(noise_path(path))
        if not high - low > 1e-6:
            raise ValueError(
                f"LogNormalSigma(mean={self.mean}, std={self.std}) lies outside the noise levels of "
                f"{type(path).__name__}; choose a mean nearer to the path's ln(sigma / alpha), or another law."
            )

    def _share(self, t: Tensor, path: NoisePath) -> Tensor:
        return normal_cdf((-path.logsnr(t) / 2 - self.mean) / self.std)

    def _ends(self, path: NoisePath) -> tuple[float, float]:
        """Shares of the uncut law below the lowest and the highest time; 0 is the lowest on a discrete path."""
        t_min = 0.0 if path.num_steps is not None else path.t_min
        with torch.no_grad():
            low, high = self._share(torch.tensor([t_min, path.t_max], dtype=torch.float64), path).tolist()
        return low, high


def noise_path(path: Path) -> NoisePath:
    """The path, which must have noise levels."""
    if not isinstance(path, NoisePath):
        raise ValueError(
            f"LogNormalSigma is a law of noise levels and {type(path).__name__} adds no noise: use UniformTimesteps, "
            "or another law of t."
        )
    return path
