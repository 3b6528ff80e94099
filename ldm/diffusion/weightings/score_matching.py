"""Denoising score matching's weight, which is also that of L_simple."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class ScoreMatching(Weighting):
    """snr on the error of x0: weight 1 on the error of eps, whatever is predicted.

    For a score this is denoising score matching with lambda(sigma) = sigma^2 (Song and Ermon 2019, arXiv 1907.05600,
    section 4.2); for Eps it is L_simple (arXiv 2006.11239, eq. 14) and the same as Uniform.
    """

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        return path.logsnr(t).exp() / prediction.error_ratio(t, path)
