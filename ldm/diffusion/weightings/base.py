"""The seam of every weighting."""

from abc import ABC, abstractmethod

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction


class Weighting(ABC):
    """The weight of the error of the network's output, by noise level."""

    @abstractmethod
    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        """Weights (B,) >= 0 for times (B,).

        A weighting defined on the error of x0 divides by prediction.error_ratio, so that it means the same
        whatever the network predicts.
        """

    def check(self, path: NoisePath, prediction: Prediction) -> None:  # noqa: B027 (most suit every pair)
        """Raise ValueError where the weighting has no meaning."""
