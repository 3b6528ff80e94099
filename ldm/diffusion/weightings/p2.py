"""Less weight on nearly clean data."""

import math

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class P2(Weighting):
    """1 / (k + snr)^gamma on the error of eps (Choi et al. 2022, arXiv 2204.00227: perception prioritized).

    Args:
        k: Keeps the weight of pure noise finite, over 0; 1 is the paper's.
        gamma: How strongly nearly clean data are held down; 0 is ScoreMatching, 0.5 and 1 are the paper's.
    """

    def __init__(self, k: float = 1.0, gamma: float = 1.0) -> None:
        if not 0 < k < math.inf or not 0 <= gamma < math.inf:
            raise ValueError(
                f"k={k}, gamma={gamma} give no weights; choose finite numbers, k over 0, gamma at least 0."
            )
        self.k = k
        self.gamma = gamma

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        snr = path.logsnr(t).exp()
        return snr / (self.k + snr) ** self.gamma / prediction.error_ratio(t, path)
