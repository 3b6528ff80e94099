"""The straight path between data and noise."""

from torch import Tensor, ones_like, sigmoid

from ldm.diffusion.paths.base import NoisePath


class RectifiedFlow(NoisePath):
    """alpha = 1 - t, sigma = t: straight lines (Liu et al. 2022, arXiv 2209.03003, eq. 1, with t reversed).

    Its velocity is eps - x0. At t = 1 no data is left, so a network cannot predict eps on it: use Velocity.
    """

    t_min = 1e-3
    t_max = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return ones_like(t)

    def logsnr(self, t: Tensor) -> Tensor:
        return 2 * ((-t).log1p() - t.log())

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return sigmoid(-logsnr / 2)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha + sigma
