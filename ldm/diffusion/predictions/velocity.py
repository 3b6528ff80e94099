"""The network predicts the direction of travel."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction
from ldm.diffusion.shapes import per_sample


class Velocity(Prediction):
    """The output is dx_t/dt = alpha' x0 + sigma' eps, from data to noise (Lipman et al. 2022, arXiv 2210.02747).

    On RectifiedFlow it is eps - x0. SiT, where t = 0 is noise, has the opposite sign.
    """

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return per_sample(path.alpha_dot(t), x0) * x0 + per_sample(path.sigma_dot(t), x0) * eps

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        sigma, sigma_dot = path.sigma(t), path.sigma_dot(t)
        x_part, output_part = sigma_dot / _wronskian(t, path), sigma / _wronskian(t, path)
        return per_sample(x_part, x_t) * x_t - per_sample(output_part, x_t) * output

    def error_ratio(self, t: Tensor, path: NoisePath) -> Tensor:
        return (_wronskian(t, path) / path.sigma(t)).square()


def _wronskian(t: Tensor, path: NoisePath) -> Tensor:
    """alpha sigma' - sigma alpha': over 0 inside every path, as logsnr falls strictly."""
    return path.alpha(t) * path.sigma_dot(t) - path.sigma(t) * path.alpha_dot(t)
