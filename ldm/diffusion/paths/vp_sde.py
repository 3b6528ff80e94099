"""The two diffusions of Song et al. whose betas rise evenly in continuous time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ldm.diffusion.paths.base import NoisePath


class VPSDE(NoisePath):
    """alpha^2 = exp(-int beta), sigma^2 = 1 - alpha^2, beta(t) = beta_min + t (beta_max - beta_min).

    Song et al. 2021 (arXiv 2011.13456, eq. 32 and 33), with t from 0.001 on: the limit of Linear in continuous time.

    Args:
        beta_min: beta(0), over 0.
        beta_max: beta(1), at least beta_min.
    """

    t_min = 1e-3
    t_max = 1.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max
        self._beta = RisingBeta(beta_min, beta_max)

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._beta.integral(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-(-self._beta.integral(t)).expm1()).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self._beta.at(t) / 2 * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self._beta.at(t) / 2 * self.alpha(t).square() / self.sigma(t)

    def logsnr(self, t: Tensor) -> Tensor:
        return -self._beta.integral(t).expm1().log()

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return self._beta.time(softplus(-logsnr))  # alpha^2 = sigmoid(logsnr)


class SubVP(NoisePath):
    """alpha^2 = exp(-int beta), sigma = 1 - alpha^2, beta(t) = beta_min + t (beta_max - beta_min).

    Song et al. 2021 (arXiv 2011.13456, section 3.4 and appendix B): less noise than VPSDE at every time, the same end.

    Args:
        beta_min: beta(0), over 0.
        beta_max: beta(1), at least beta_min.
    """

    t_min = 1e-3
    t_max = 1.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max
        self._beta = RisingBeta(beta_min, beta_max)

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._beta.integral(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return -(-self._beta.integral(t)).expm1()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self._beta.at(t) / 2 * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self._beta.at(t) * self.alpha(t).square()

    def logsnr(self, t: Tensor) -> Tensor:
        return -2 * (2 * (self._beta.integral(t) / 2).sinh()).log()  # sigma / alpha = 2 sinh(int beta / 2)

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return self._beta.time(2 * ((-logsnr / 2).exp() / 2).asinh())

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The n over 0 with n^2 - sigma n - alpha^2 = 0: sigma / n = 1 - (alpha / n)^2."""
        return (sigma + torch.hypot(sigma, 2 * alpha)) / 2


@dataclass(frozen=True)
class RisingBeta:
    """beta(t) from beta_min to beta_max, even in t, and its integral from 0 on."""

    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                f"beta_min={self.beta_min} and beta_max={self.beta_max} make no noise path; "
                "choose 0 < beta_min <= beta_max (0.1 and 20 are usual)."
            )

    def at(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + t * ((self.beta_max - self.beta_min) / 2))

    def time(self, integral: Tensor) -> Tensor:
        """The t in [0, 1] with that integral, or the nearer end."""
        total = (self.beta_min + self.beta_max) / 2
        inside = integral.clamp(max=total)
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * inside).sqrt()
        return torch.where(integral < total, 2 * inside / (self.beta_min + root), 1.0)
