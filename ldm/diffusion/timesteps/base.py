"""The seam of every distribution of training times."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ldm.diffusion.paths import Path


class Timesteps(ABC):
    """A distribution on [0, 1], known by its quantile function and its inverse: it draws nothing itself.

    Attributes:
        corrected: divide the loss by the density, so that its mean is that of uniform times. False for laws
            that are there to change what is trained how much. Bounds on the likelihood are always corrected.
        learns: whether `update` does anything.
    """

    corrected: bool = False
    learns: bool = False

    @abstractmethod
    def quantile(self, u: Tensor, path: Path) -> Tensor:
        """Uniform numbers u (B,) in [0, 1) -> times (B,) in [0, 1], rising with u; the path snaps them."""

    @abstractmethod
    def cdf(self, t: Tensor, path: Path) -> Tensor:
        """The inverse of `quantile`: the probability of a time up to t (B,), rising from 0 to 1."""

    def spread(self, u: Tensor) -> Tensor:
        """The uniform numbers to use for a whole batch instead of u (B,): here, u itself."""
        return u

    def update(self, t: Tensor, losses: Tensor, path: Path) -> None:  # noqa: B027 (most laws do not learn)
        """Learn from a training step's times and losses as trained, those of all processes: (B,) each."""

    def check(self, path: Path) -> None:  # noqa: B027 (most laws suit every path)
        """Raise ValueError where the law has no meaning on this path."""

    def density(self, t: Tensor, path: Path) -> Tensor:
        """How much more often than under uniform times t (B,) on the path's grid is drawn: (B,) in t's dtype."""
        t64 = t.double()
        if path.num_steps is not None:
            below, above = (t64 - 1 / path.num_steps).clamp(min=0), t64
        else:
            step = (1e-3 * t64).clamp(max=1e-5 * (path.t_max - path.t_min))  # short where t itself is small, as on EDM
            below, above = (t64 - step).clamp(min=path.t_min), (t64 + step).clamp(max=path.t_max)
        span = (above - below) / (1.0 if path.num_steps is not None else path.t_max - path.t_min)
        return ((self.cdf(above, path) - self.cdf(below, path)) / span).to(t.dtype)


def normal_quantile(u: Tensor) -> Tensor:
    """Standard normal z below which a share u lies; -inf at u = 0."""
    z: Tensor = torch.special.ndtri(u)
    return z


def normal_cdf(z: Tensor) -> Tensor:
    share: Tensor = torch.special.ndtr(z)
    return share


def kept(share: Callable[[Tensor], Tensor], path: Path) -> tuple[float, float]:
    """The values of a distribution function on [0, 1] at the ends of the times that a path can be trained at.

    A law stated on all of [0, 1] is cut to what lies between them, so that nothing heaps up where the path snaps it.
    A discrete path keeps all: it snaps up to its grid.
    """
    if path.num_steps is not None:
        return 0.0, 1.0
    low, high = share(torch.tensor([path.t_min, path.t_max], dtype=torch.float64)).tolist()
    return low, high
