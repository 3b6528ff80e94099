"""The network predicts v."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction
from ldm.diffusion.shapes import per_sample


class V(Prediction):
    """The output is v = alpha eps - sigma x0 (Salimans and Ho 2022, arXiv 2202.00512, section 4).

    Not the velocity dx_t/dt, which is another prediction. On a path with alpha^2 + sigma^2 = 1, and on no
    other, v is the velocity with respect to the angle atan(sigma / alpha).
    """

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return per_sample(path.alpha(t), x0) * eps - per_sample(path.sigma(t), x0) * x0

    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        alpha, sigma = path.alpha(t), path.sigma(t)
        square = alpha.square() + sigma.square()
        return alpha / square, -sigma / square
