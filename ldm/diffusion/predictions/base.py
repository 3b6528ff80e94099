"""The seam of every prediction."""

from abc import ABC, abstractmethod

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.shapes import per_sample


class Prediction(ABC):
    """What the network's output means. At given (x_t, t), x0 is affine in it: x0 = a(t) x_t + b(t) output."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        """What a perfect network would return for x_t = alpha x0 + sigma eps; (B, ...) like x0, t (B,)."""

    @abstractmethod
    def x0_coefficients(self, t: Tensor, path: NoisePath) -> tuple[Tensor, Tensor]:
        """a and b of x0 = a x_t + b output, each shaped like t."""

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        """The estimate of x0 that an output for x_t stands for; shaped like x_t, for t (B,) or 0-dim."""
        a, b = self.x0_coefficients(t, path)
        return per_sample(a, x_t) * x_t + per_sample(b, x_t) * output

    def from_x0(self, x0: Tensor, x_t: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        """The output that stands for an estimate x0: the inverse of `to_x0`, at t > 0."""
        a, b = self.x0_coefficients(t, path)
        return (x0 - per_sample(a, x_t) * x_t) / per_sample(b, x_t)

    def error_ratio(self, t: Tensor, path: NoisePath) -> Tensor:
        """(squared error of the output) / (squared error of its x0), shaped like t: 1 / b^2.

        So a weight w on the output's error is the weight w * error_ratio on the error of x0.
        """
        return self.x0_coefficients(t, path)[1].square().reciprocal()

    def check(self, path: NoisePath) -> None:  # noqa: B027 (most predictions mean something on every path)
        """Raise ValueError where x0 cannot be read from this prediction somewhere on the path."""
