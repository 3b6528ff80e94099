"""The seam of variance-preserving paths given by T numbers beta_k, k = 0..T-1."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ldm.diffusion.paths.base import NoisePath
from ldm.diffusion.paths.grid import piece, place, to_device, up_to_grid


class DiscretePath(NoisePath):
    """alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar), alpha_bar_k = prod_{j<=k} (1 - beta_j) at t = (k+1)/T.

    The notation is that of Ho et al. 2020 (arXiv 2006.11239, eq. 2 and 4). Between the grid points log alpha_bar runs
    straight, from 0 at t = 0 on. So off-grid times are defined, and a sampler may ask for any. At a grid point the
    derivatives are those of the piece that ends there. A last beta of 1 ends the path in pure noise: log alpha_bar
    has no straight way to -inf, so on this last piece it is alpha that runs straight, down to 0.
    """

    @abstractmethod
    def __init__(self, betas: Tensor) -> None:  # abstract: a leaf gives a formula for betas, float64 (T,)
        self.num_steps: int = len(betas)
        self.t_min = 1 / len(betas)
        self.t_max = 1.0
        zero = torch.zeros(1, dtype=torch.float64)
        # log alpha_bar at t = 0, 1/T, ..., 1; a sum of log1p keeps digits that a product loses for tiny betas
        self.log_alpha_bars = torch.cat([zero, torch.log1p(-betas.double()).cumsum(0)])  # (T+1,)
        self._fades = bool(self.log_alpha_bars[-1] == -torch.inf)
        self._knots = self.log_alpha_bars.clone()  # finite: the last piece of a fading path is flat, times `_fade`
        if self._fades:
            self._knots[-1] = self._knots[-2]

    def alpha(self, t: Tensor) -> Tensor:
        straight, fade = self._parts(t)
        return ((straight / 2).exp() * fade).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return _variance(*self._parts(t)).sqrt().to(t.dtype)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self._alpha_dot(t).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        straight, fade = self._parts(t)
        alpha = (straight / 2).exp() * fade
        return (-alpha * self._alpha_dot(t) / _variance(straight, fade).sqrt()).to(t.dtype)

    def logsnr(self, t: Tensor) -> Tensor:
        straight, fade = self._parts(t)
        return (straight + 2 * fade.log() - _variance(straight, fade).log()).to(t.dtype)

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        table, steps = to_device(self._knots, logsnr), self.num_steps
        log_alpha_bar = logsigmoid(logsnr.to(table.dtype))  # alpha_bar = sigmoid(logsnr), as alpha^2 + sigma^2 = 1
        found = (torch.searchsorted(-table, -log_alpha_bar) - 1).clamp(0, steps - 1)
        below = log_alpha_bar - table[found]
        at = found + below / (table[found + 1] - table[found])
        if self._fades:
            at = torch.where(found == steps - 1, steps - (below / 2).exp(), at)
        return (at / steps).clamp(0, 1).to(logsnr.dtype)

    def noise_condition(self, t: Tensor) -> Tensor:
        """t T - 1: the integer step k at t = (k+1)/T, a fraction between grid points."""
        return (place(t, self.num_steps) - 1).to(t.dtype)

    def snap(self, t: Tensor) -> Tensor:
        """Up to the grid: t in (k/T, (k+1)/T] gives (k+1)/T, so uniform t gives uniform steps k."""
        return up_to_grid(t, self.num_steps)

    def from_uniform(self, u: Tensor) -> Tensor:
        return u  # `snap` goes up to the grid, so every step has the same share of [0, 1)

    def _parts(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha^2 as exp(straight) * fade^2: fade is 1, but falls to 0 on the last piece of a path to pure noise."""
        table, at = to_device(self._knots, t), place(t, self.num_steps)
        found = piece(at, self.num_steps)
        straight = table[found] + (at - found) * (table[found + 1] - table[found])
        left = self.num_steps - at
        return straight, torch.where(self._last(at), left, 1.0) if self._fades else torch.ones_like(left)

    def _alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt of the piece that t lies in or ends."""
        table, at = to_device(self._knots, t), place(t, self.num_steps)
        found = piece(at, self.num_steps)
        slope = (table[found + 1] - table[found]) * self.num_steps
        straight, fade = self._parts(t)
        slope = slope / 2 * fade
        if self._fades:
            slope = torch.where(self._last(at), -float(self.num_steps), slope)
        return slope * (straight / 2).exp()

    def _last(self, at: Tensor) -> Tensor:
        return at > self.num_steps - 1


def _variance(straight: Tensor, fade: Tensor) -> Tensor:
    """1 - exp(straight) * fade^2, with all its digits near 0."""
    return -straight.expm1() + straight.exp() * (1 - fade) * (1 + fade)
