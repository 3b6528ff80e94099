"""The seam of every distribution of training times."""

from abc import ABC, abstractmethod

from torch import Tensor


class Timesteps(ABC):
    """A distribution on [0, 1] as its quantile function: it draws nothing, the caller's u is the draw."""

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """Uniform numbers u (B,) in [0, 1) -> times (B,) in [0, 1], rising with u; the path snaps them."""
