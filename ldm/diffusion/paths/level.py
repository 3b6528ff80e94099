"""A path at given times as plain numbers, which is what samplers compute with."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ldm.diffusion.paths.base import NoisePath

MOST_KNOWN = 1000  # lists of levels kept for one path


@dataclass(frozen=True)
class Level:
    """The path at time t. At t = 0, alpha is 1, sigma 0 and logsnr infinite; the derivatives may not be finite."""

    t: float
    alpha: float
    sigma: float
    logsnr: float
    alpha_dot: float
    sigma_dot: float

    @property
    def lam(self) -> float:
        """log(alpha / sigma), the lambda of the DPM-Solver papers: half of logsnr."""
        return self.logsnr / 2

    @property
    def g2(self) -> float:
        """Squared diffusion coefficient of the path's SDE (arXiv 2107.00630, eq. 4): -sigma^2 d logsnr / dt.

        Infinite where alpha is 0.
        """
        if self.alpha == 0:
            return float("inf")
        return 2 * self.sigma * (self.sigma_dot - self.sigma * self.alpha_dot / self.alpha)


# What is known of paths that do not learn: samplers walk the same grid batch after batch.
_known: WeakKeyDictionary[NoisePath, dict[tuple[float, ...], list[Level]]] = WeakKeyDictionary()


def levels(path: NoisePath, times: Tensor | Sequence[float]) -> list[Level]:
    """The path at each of `times`, computed at once in float64."""
    t = torch.as_tensor(times, dtype=torch.float64)
    known = {} if path.learns else _known.setdefault(path, {})
    key = tuple(t.tolist())
    if key not in known:
        with torch.no_grad():
            functions = (path.alpha, path.sigma, path.logsnr, path.alpha_dot, path.sigma_dot)
            columns = [key, *(f(t).tolist() for f in functions)]
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[key] = [Level(*row) for row in zip(*columns, strict=True)]
    return known[key]


def level(path: NoisePath, t: float) -> Level:
    """The path at one time."""
    return levels(path, [t])[0]


def level_at(path: NoisePath, lam: float) -> Level:
    """The path where log(alpha / sigma) is `lam`."""
    return level(path, float(path.t_from_logsnr(torch.tensor(2 * lam, dtype=torch.float64))))
