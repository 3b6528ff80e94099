"""Signal-to-noise ratio as the weight, cut from below."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class TruncatedSNR(Weighting):
    """max(snr, 1) on the error of x0 (Salimans and Ho 2022, arXiv 2202.00512, section 4).

    The larger of the errors of x0 and eps, so pure noise is trained too. Where alpha^2 + sigma^2 = 1 the paper's
    other choice, snr + 1, is Uniform with the prediction V.
    """

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        return path.logsnr(t).exp().clamp(min=1) / prediction.error_ratio(t, path)
