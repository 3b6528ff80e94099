"""The seam of every measure of error."""

from abc import ABC, abstractmethod

from torch import Tensor

from ldm.diffusion.predictions import Prediction


class Error(ABC):
    """How far an output is from its target, one number per sample."""

    @abstractmethod
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """(B, C, ...) each -> (B,) >= 0, 0 where they are equal; means over all dimensions but the first."""

    def check(self, prediction: Prediction) -> None:  # noqa: B027 (most errors suit every prediction)
        """Raise ValueError where the error has no meaning for this prediction."""
