"""The network predicts what is left of the data once a share of x_t is taken off, at unit variance."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction
from ldm.diffusion.shapes import per_sample


class Preconditioned(Prediction):
    """x0 = c_skip x_t + c_out output (Karras et al. 2022, arXiv 2206.00364, eq. 7 and table 1), on any path.

    c_in and c_noise belong to the path (`net_input`, `noise_condition`), as does sigma_data. With the weighting
    Uniform the loss is EDM's: its lambda(sigma) = 1 / c_out^2 gives the error of the output weight 1.
    """

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        x_t = path.corrupt(x0, eps, t)
        c_skip, c_out = self.x0_coefficients(t, path)
        return (x0 - per_sample(c_skip, x0) * x_t) / per_sample(c_out, x0)

    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        alpha, sigma, data = path.alpha(t), path.sigma(t), path.sigma_data
        variance = sigma.square() + (alpha * data).square()
        return alpha * data**2 / variance, sigma * data / variance.sqrt()
