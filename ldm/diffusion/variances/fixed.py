"""Variances that no network learns."""

from torch import Tensor, where

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.variances.base import Variance, log_large, log_small


class FixedSmall(Variance):
    """That of q(x_s | x_t, x0): exact for data at one point (Ho et al. 2020, arXiv 2006.11239, section 3.2)."""

    def log_variance(self, path: NoisePath, t: Tensor, s: Tensor, raw: Tensor | None) -> Tensor:
        return log_small(path, t, s)


class FixedLarge(Variance):
    """That of q(x_t | x_s), beta_t: exact for data of unit variance (arXiv 2006.11239, section 3.2)."""

    def log_variance(self, path: NoisePath, t: Tensor, s: Tensor, raw: Tensor | None) -> Tensor:
        return where(s == 0, log_small(path, t, s), log_large(path, t, s))
