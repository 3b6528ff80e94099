"""The bound on the likelihood, reweighted by a sigmoid of the noise level."""

import math

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class SigmoidWeighting(Weighting):
    """w = sigmoid(bias - logsnr) per unit of logsnr on the error of eps (Kingma and Gao 2023, arXiv 2303.00848).

    In their weighted bound, 1/2 integral w(logsnr) ||eps error||^2 dlogsnr, w = 1 is the bound itself. Over uniform
    times that is the weight -dlogsnr/dt sigmoid(bias - logsnr) on eps (the 1/2 is left out), so the path matters for
    the variance only. Hoogeboom et al. 2024 (arXiv 2410.19324) use it for large images. Taken per t instead of per
    logsnr it would be SoftMinSNR with gamma = exp(bias).

    Args:
        bias: The logsnr where the weight is halved; a higher one trains finer detail.
    """

    def __init__(self, bias: float = 0.0) -> None:
        if not math.isfinite(bias):
            raise ValueError(f"bias={bias} weighs nothing; choose a finite number (-3 to 2 is usual).")
        self.bias = bias

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        growth = alpha * path.sigma_dot(t) - sigma * path.alpha_dot(t)
        fall = 2 * alpha / sigma * growth / sigma.square()  # snr * -dlogsnr/dt, finite where alpha is 0
        return fall * (self.bias - path.logsnr(t)).sigmoid() / prediction.error_ratio(t, path)
