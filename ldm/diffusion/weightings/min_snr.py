"""Signal-to-noise ratio as the weight, cut from above."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class MinSNR(Weighting):
    """min(snr, gamma) on the error of x0 (Hang et al. 2023, arXiv 2303.09556, section 3.4).

    On the output this is min(snr, gamma) / snr for Eps and, where alpha^2 + sigma^2 = 1,
    min(snr, gamma) / (snr + 1) for V.

    Args:
        gamma: The largest weight that the error of x0 can get, over 0; 5 is the paper's.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma={gamma} gives no sample a weight; choose a number over 0 (5 is usual).")
        self.gamma = gamma

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        return path.logsnr(t).exp().clamp(max=self.gamma) / prediction.error_ratio(t, path)
