"""EDM's weight."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.weightings.base import Weighting


class EDMWeighting(Weighting):
    """(s^2 + sigma_data^2) / (s sigma_data)^2 on the error of x0, s = sigma / alpha (arXiv 2206.00364, table 1).

    That is snr + 1 / sigma_data^2, and weight 1 on the output of Preconditioned. sigma_data is the path's.
    """

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        return (path.logsnr(t).exp() + path.sigma_data**-2) / prediction.error_ratio(t, path)
