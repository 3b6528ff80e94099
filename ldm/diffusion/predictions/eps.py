"""The network predicts the noise."""

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction
from ldm.diffusion.shapes import per_sample


class Eps(Prediction):
    """The output is eps (Ho et al. 2020, arXiv 2006.11239, eq. 14), on a path that keeps some data at its end."""

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return eps

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return (x_t - per_sample(path.sigma(t), x_t) * output) / per_sample(path.alpha(t), x_t)

    def error_ratio(self, t: Tensor, path: NoisePath) -> Tensor:
        return path.logsnr(t).exp()

    def check(self, path: NoisePath) -> None:
        if float(path.alpha(torch.tensor(path.t_max, dtype=torch.float64))) == 0:
            raise ValueError(
                f"Eps has no meaning on {type(path).__name__}: at its last time x_t is pure noise, and x0 cannot "
                "be read from it. Use the prediction Velocity, V or X0, or another path."
            )
