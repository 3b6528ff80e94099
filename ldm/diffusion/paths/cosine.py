"""The cosine path in continuous time."""

import math

import torch
from torch import Tensor

from ldm.diffusion.paths.base import NoisePath


class Cosine(NoisePath):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), t from 0.001 to 0.999.

    The schedule of Nichol and Dhariwal (arXiv 2102.09672, eq. 17) without its offset, as in Salimans and Ho
    (arXiv 2202.00512, section 2). The ends are cut because logsnr is infinite there.
    """

    t_min = 1e-3
    t_max = 0.999

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - t))  # not cos(pi t / 2): 1 - t is exact near t = 1, pi t / 2 is not

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return math.pi / 2 * self.alpha(t)

    def logsnr(self, t: Tensor) -> Tensor:
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan(torch.exp(-logsnr / 2))
