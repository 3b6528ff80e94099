"""The network predicts the direction of travel."""

import torch
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

    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        sigma, sigma_dot = path.sigma(t), path.sigma_dot(t)
        # alpha sigma' - sigma alpha': over 0 inside every path, as logsnr falls strictly
        wronskian = path.alpha(t) * sigma_dot - sigma * path.alpha_dot(t)
        return sigma_dot / wronskian, -sigma / wronskian

    def check(self, path: NoisePath) -> None:
        times = torch.linspace(path.t_min, path.t_max, 7, dtype=torch.float64)
        with torch.no_grad():
            if bool((path.alpha_dot(times) == 0).all()):
                raise ValueError(
                    f"Velocity has no meaning on {type(path).__name__}: its data do not move, so the velocity is the "
                    "noise alone, times a slope that spans orders of magnitude. Use Eps or Preconditioned."
                )
