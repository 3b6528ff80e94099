"""The network predicts the score."""

from torch import Tensor, ones_like

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions.base import Prediction
from ldm.diffusion.predictions.eps import refuse_lost_data
from ldm.diffusion.shapes import per_sample


class Score(Prediction):
    """The output is the score, grad log p(x_t) (Song et al. 2021, arXiv 2011.13456, eq. 7).

    Its target for one x0 is the score of the noising kernel, -eps / sigma.

    Args:
        scaled: The output is sigma times the score, which has unit variance at every noise level, as in NCSNv2
            (Song and Ermon 2020, arXiv 2006.09011, section 3.3); the weighting then sees that error.
    """

    def __init__(self, scaled: bool = False) -> None:
        self.scaled = scaled

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        return -eps / per_sample(self._unit(t, path), x0)

    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        alpha = path.alpha(t)
        return 1 / alpha, path.sigma(t) * self._unit(t, path) / alpha

    def check(self, path: NoisePath) -> None:
        refuse_lost_data(self, path)

    def _unit(self, t: Tensor, path: NoisePath) -> Tensor:
        """(standard deviation of eps) / (that of the target)."""
        return ones_like(t) if self.scaled else path.sigma(t)
