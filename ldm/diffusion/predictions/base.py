"""The seam of every prediction."""

from abc import ABC, abstractmethod

from torch import Tensor

from ldm.diffusion.paths import NoisePath


class Prediction(ABC):
    """What the network's output means. Batches are (B, ...), times (B,)."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        """What a perfect network would return for x_t = alpha x0 + sigma eps; shaped like x0."""

    @abstractmethod
    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        """The estimate of x0 that an output for x_t stands for; shaped like x_t."""

    @abstractmethod
    def error_ratio(self, t: Tensor, path: NoisePath) -> Tensor:
        """(squared error of the output) / (squared error of its x0), shaped like t.

        So a weight w on the output's error is the weight w * error_ratio on the error of x0.
        """

    def check(self, path: NoisePath) -> None:  # noqa: B027 (most predictions mean something on every path)
        """Raise ValueError where x0 cannot be read from this prediction somewhere on the path."""
