"""Paths given by T numbers beta_k, k = 0..T-1 (Ho et al. 2020, arXiv 2006.11239, eq. 2 and 4)."""

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ldm.diffusion.paths.base import NoisePath


class DiscretePath(NoisePath):
    """alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar), alpha_bar_k = prod_{j<=k} (1 - beta_j) at t = (k+1)/T.

    Between the grid points log alpha_bar runs straight, from 0 at t = 0 on. So off-grid times are defined, and
    a sampler may ask for any. At a grid point the derivatives are those of the piece that ends there.
    """

    @abstractmethod
    def __init__(self, betas: Tensor) -> None:  # abstract: a leaf gives a formula for betas, float64 (T,)
        self.num_steps = len(betas)
        self.t_min = 1 / len(betas)
        self.t_max = 1.0
        zero = torch.zeros(1, dtype=torch.float64)
        # log alpha_bar at t = 0, 1/T, ..., 1; a sum of log1p keeps digits that a product loses for tiny betas
        self.log_alpha_bars = torch.cat([zero, torch.log1p(-betas.double()).cumsum(0)])  # (T+1,)

    def alpha(self, t: Tensor) -> Tensor:
        return (self._log_alpha_bar(t) / 2).exp().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (-self._log_alpha_bar(t).expm1()).sqrt().to(t.dtype)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return (self._slope(t) / 2 * (self._log_alpha_bar(t) / 2).exp()).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        log_alpha_bar = self._log_alpha_bar(t)
        return (-self._slope(t) / 2 * log_alpha_bar.exp() / (-log_alpha_bar.expm1()).sqrt()).to(t.dtype)

    def logsnr(self, t: Tensor) -> Tensor:
        log_alpha_bar = self._log_alpha_bar(t)
        return (log_alpha_bar - (-log_alpha_bar.expm1()).log()).to(t.dtype)

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        table = self._table(logsnr)
        log_alpha_bar = logsigmoid(logsnr.to(table.dtype))  # alpha_bar = sigmoid(logsnr), as alpha^2 + sigma^2 = 1
        piece = (torch.searchsorted(-table, -log_alpha_bar) - 1).clamp(0, len(table) - 2)
        place = piece + (log_alpha_bar - table[piece]) / (table[piece + 1] - table[piece])
        return (place / (len(table) - 1)).clamp(0, 1).to(logsnr.dtype)

    def noise_condition(self, t: Tensor) -> Tensor:
        """t T - 1: the integer step k at t = (k+1)/T, a fraction between grid points."""
        return (self._place(t) - 1).to(t.dtype)

    def snap(self, t: Tensor) -> Tensor:
        """Up to the grid: t in (k/T, (k+1)/T] gives (k+1)/T, so uniform t gives uniform steps k."""
        steps = len(self.log_alpha_bars) - 1
        return (self._place(t).ceil().clamp(1, steps) / steps).to(t.dtype)

    def from_uniform(self, u: Tensor) -> Tensor:
        return u  # `snap` goes up to the grid, so every step has the same share of [0, 1)

    def _table(self, like: Tensor) -> Tensor:
        """log alpha_bar (T+1,) on the device of `like`, in float64 where the device has it."""
        if like.device.type == "mps":
            return self.log_alpha_bars.to(like.dtype).to(like.device)
        return self.log_alpha_bars.to(like.device, non_blocking=True)  # blocking would stall a GPU each step

    def _place(self, t: Tensor) -> Tensor:
        """t T, counted as whole where float32 could not tell t from the grid point."""
        steps = len(self.log_alpha_bars) - 1
        place = t.to(t.dtype if t.device.type == "mps" else torch.float64) * steps
        off = (place - place.round()).detach()  # detached, so that autograd sees a slope at grid points too
        return place - torch.where(off.abs() < 2e-7 * steps, off, 0)

    def _log_alpha_bar(self, t: Tensor) -> Tensor:
        table, place = self._table(t), self._place(t)
        piece = _piece(place, len(table) - 1)
        return table[piece] + (place - piece) * (table[piece + 1] - table[piece])

    def _slope(self, t: Tensor) -> Tensor:
        """d log alpha_bar / dt of the piece that t lies in or ends."""
        table = self._table(t)
        piece = _piece(self._place(t), len(table) - 1)
        return (table[piece + 1] - table[piece]) * (len(table) - 1)


class Linear(DiscretePath):
    """Betas evenly spaced, as in DDPM (arXiv 2006.11239, section 4) and DiT; CompVis calls it "sqrt_linear".

    Args:
        beta_start: First beta, over 0.
        beta_end: Last beta, at least beta_start and under 1.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000) -> None:
        _check(beta_start, beta_end, num_steps)
        super().__init__(torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64))


class ScaledLinear(DiscretePath):
    """Square roots of the betas evenly spaced, as in latent and stable diffusion (arXiv 2112.10752).

    CompVis calls it "linear", DiT "quad", diffusers "scaled_linear".

    Args:
        beta_start: First beta, over 0.
        beta_end: Last beta, at least beta_start and under 1.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
    """

    def __init__(self, beta_start: float = 8.5e-4, beta_end: float = 0.012, num_steps: int = 1000) -> None:
        _check(beta_start, beta_end, num_steps)
        roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_steps, dtype=torch.float64)
        super().__init__(roots.square())


def _piece(place: Tensor, steps: int) -> Tensor:
    """Index of the piece (k, k+1] that a place falls in; place 0 belongs to the first."""
    return (place.ceil().long() - 1).clamp(0, steps - 1)


def _check(beta_start: float, beta_end: float, num_steps: int) -> None:
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            f"beta_start={beta_start} and beta_end={beta_end} make no noise path; "
            "choose 0 < beta_start <= beta_end < 1."
        )
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} leaves the noise path empty; choose at least 1 (1000 is usual).")
