"""No weighting."""

from torch import Tensor, ones_like

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class Uniform(Weighting):
    """Weight 1 on the error of the output, whatever it predicts (DDPM, arXiv 2006.11239, eq. 14)."""

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        return ones_like(t)
