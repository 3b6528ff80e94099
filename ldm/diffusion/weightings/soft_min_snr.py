"""Signal-to-noise ratio as the weight, smoothly bent at its top."""

import math

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class SoftMinSNR(Weighting):
    """snr gamma / (snr + gamma) on the error of x0 (Crowson et al. 2024, arXiv 2401.11605): MinSNR without its corner.

    k-diffusion's form is this one with gamma = 1 / sigma_data^2.

    Args:
        gamma: The largest weight that the error of x0 can get, over 0; 4 is k-diffusion's, for a sigma_data of 0.5.
    """

    def __init__(self, gamma: float = 4.0) -> None:
        if not 0 < gamma < math.inf:
            raise ValueError(f"gamma={gamma} gives no weight; choose a finite number over 0 (4 is usual).")
        self.gamma = gamma

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        on_x0 = self.gamma * (path.logsnr(t) - math.log(self.gamma)).sigmoid()
        return on_x0 / prediction.error_ratio(t, path)
