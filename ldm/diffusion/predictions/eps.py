"""The network predicts the noise."""

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction


class Eps(Prediction):
    """The output is eps (Ho et al. 2020, arXiv 2006.11239, eq. 14), on a path that keeps some data at its end."""

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return eps

    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        alpha = path.alpha(t)
        return 1 / alpha, -path.sigma(t) / alpha

    def check(self, path: NoisePath) -> None:
        refuse_lost_data(self, path)


def refuse_lost_data(prediction: Prediction, path: NoisePath) -> None:
    """ValueError where the path ends in pure noise, for predictions that tell of the noise alone."""
    if float(path.alpha(torch.tensor(path.t_max, dtype=torch.float64))) == 0:
        raise ValueError(
            f"{type(prediction).__name__} has no meaning on {type(path).__name__}: at its last time x_t is pure "
            "noise, and x0 cannot be read from it. Use the prediction Velocity, V or X0, or another path."
        )
