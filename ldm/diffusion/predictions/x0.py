"""The network predicts the clean data."""

from torch import Tensor, ones_like, zeros_like

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction


class X0(Prediction):
    """The output is x0 itself (Salimans and Ho 2022, arXiv 2202.00512, section 4)."""

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return x0

    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        return zeros_like(t), ones_like(t)

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return output
