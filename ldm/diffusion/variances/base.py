"""The seam of every choice of the spread of one reverse step."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath


class Variance(ABC):
    """The variance of p(x_s | x_t), s < t, of a reverse step.

    Attributes:
        learned: it is read from the network's raw variance channels.
    """

    learned: bool = False

    @abstractmethod
    def log_variance(self, path: NoisePath, t: Tensor, s: Tensor, raw: Tensor | None) -> Tensor:
        """log of the variance, for t and s (B,) or 0-dim and the network's raw variance channels (B, C, ...).

        Shaped like t, or like raw where that is used. At s = 0, where a fixed variance would be 0 and only a bound
        asks, it is that of the step before (2t - s to t), as in the code of Nichol and Dhariwal.

        Raises:
            ValueError: raw is None and the variance is read from it.
        """


def log_small(path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
    """log of the variance of q(x_s | x_t, x0) (Ho et al. 2020, arXiv 2006.11239, eq. 7, for any alpha and sigma)."""
    last = s == 0
    t, s = torch.where(last, 2 * t - s, t), torch.where(last, t, s)
    return 2 * path.sigma(s).log() + log_new_share(path, t, s)


def log_large(path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
    """log of the variance of q(x_t | x_s): log beta_t on the grid of a discrete path."""
    return 2 * path.sigma(t).log() + log_new_share(path, t, s)


def log_new_share(path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
    """log(1 - snr_t / snr_s): which part of the noise variance at t came in between s and t."""
    return (-torch.expm1(path.logsnr(t) - path.logsnr(s))).log()
