"""Paths on which the data stay as they are and the noise grows: variance exploding."""

import math

import torch
from torch import Tensor, ones_like, zeros_like

from ldm.diffusion.paths.base import NoisePath
from ldm.diffusion.paths.grid import piece, place, to_device, up_to_grid


class VE(NoisePath):
    """alpha = 1, sigma^2 = sigma_min^2 (r^(2t) - 1) with r^2 = 1 + (sigma_max / sigma_min)^2.

    The variance-exploding SDE (Song et al. 2021, arXiv 2011.13456, eq. 30 and 31), with r such that sigma is 0 at
    t = 0 and sigma_max at t = 1. Training and sampling begin at sigma_min.

    Args:
        sigma_min: Least noise that a network is asked about, over 0.
        sigma_max: Noise at t = 1, over sigma_min: about the largest distance between two data.
        sigma_data: Standard deviation of the data; networks see x_t / sqrt(sigma^2 + sigma_data^2).
    """

    t_max = 1.0
    scaled_input = True

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, sigma_data: float = 1.0) -> None:
        check_sigmas(sigma_min, sigma_max, sigma_data)
        self.sigma_min, self.sigma_max, self.sigma_data = sigma_min, sigma_max, sigma_data
        self._rate = math.log1p((sigma_max / sigma_min) ** 2)  # log r^2
        self.t_min = math.log(2) / self._rate

    def alpha(self, t: Tensor) -> Tensor:
        return ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self._rate * t).expm1().sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * self._rate / 2 * (self._rate * t).exp() / self.sigma(t)

    def logsnr(self, t: Tensor) -> Tensor:
        return -2 * self.sigma(t).log()

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return ((-logsnr - 2 * math.log(self.sigma_min)).exp().log1p() / self._rate).clamp(0, 1)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha


class EDM(NoisePath):
    """alpha = 1, sigma = sigma_max t: noise as time, in the terms of Karras et al. 2022 (arXiv 2206.00364, table 1).

    A network hears ln(sigma) / 4 and sees x_t / sqrt(sigma^2 + sigma_data^2), their c_noise and c_in; samplers space
    their steps evenly in sigma^(1/rho) (eq. 5). With the prediction Preconditioned and the timesteps LogNormalSigma it
    is EDM whole.

    Args:
        sigma_min: Least noise that a network is asked about, over 0.
        sigma_max: Noise at t = 1, over sigma_min.
        sigma_data: Standard deviation of the data, over 0: 1 where latents or images have been normalised.
        rho: How much the samplers' steps crowd near the data, over 0; 1 is even.
    """

    t_max = 1.0
    scaled_input = True

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 1.0, rho: float = 7.0
    ) -> None:
        check_sigmas(sigma_min, sigma_max, sigma_data)
        if not 0 < rho < math.inf:
            raise ValueError(f"rho={rho} spaces no steps; choose a number over 0 (7 is usual, 1 is even).")
        self.sigma_min, self.sigma_max, self.sigma_data, self.rho = sigma_min, sigma_max, sigma_data, rho
        self.t_min = sigma_min / sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.sigma_max * ones_like(t)

    def logsnr(self, t: Tensor) -> Tensor:
        return -2 * self.sigma(t).log()

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return ((-logsnr / 2).exp() / self.sigma_max).clamp(max=1)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha

    def noise_condition(self, t: Tensor) -> Tensor:
        """ln(sigma) / 4."""
        return self.sigma(t).log() / 4


class NoiseLevels(NoisePath):
    """alpha = 1 and L levels of noise, sigma rising geometrically: NCSN (Song and Ermon 2019, arXiv 1907.05600).

    Level k = 0..L-1 is t = (k+1)/L, and a network hears k; there 0 is the most noise, here the least. Between levels
    log sigma runs straight; below the first sigma itself does, to 0. At a level the derivatives are those of the piece
    that ends there.

    Args:
        sigma_min: Noise of the first level, over 0.
        sigma_max: Noise of the last level, over sigma_min.
        num_steps: Number of levels L, at least 2.
        sigmas: Any rising levels in place of the geometric ones; the three numbers above then count for nothing.
        sigma_data: Standard deviation of the data; networks see x_t / sqrt(sigma^2 + sigma_data^2).
    """

    t_max = 1.0
    scaled_input = True

    def __init__(
        self,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        num_steps: int = 1000,
        sigmas: list[float] | None = None,
        sigma_data: float = 1.0,
    ) -> None:
        check_sigmas(sigma_min, sigma_max, sigma_data)
        if num_steps < 2:
            raise ValueError(f"num_steps={num_steps} leaves no room between the levels; choose at least 2.")
        if sigmas is None:
            logs = torch.linspace(math.log(sigma_min), math.log(sigma_max), num_steps, dtype=torch.float64)
        else:
            logs = torch.tensor(sigmas, dtype=torch.float64).log()
        if len(logs) == 0 or not bool(logs.isfinite().all()) or not bool((logs.diff() > 0).all()):
            raise ValueError(
                "sigmas are no levels of noise; choose at least one number, each over the one before and 0."
            )
        self.sigmas: list[float] = logs.exp().tolist()
        self.sigma_min, self.sigma_max, self.sigma_data = self.sigmas[0], self.sigmas[-1], sigma_data
        self.num_steps: int = len(logs)
        self.t_min = 1 / self.num_steps
        self._logs = torch.cat([logs[:1], logs])  # log sigma at 0 (not used), 1/L, ..., 1

    def alpha(self, t: Tensor) -> Tensor:
        return ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        logs, _, at = self._parts(t)
        return (logs.exp() * torch.where(at > 1, 1.0, at)).to(t.dtype)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        logs, slope, at = self._parts(t)
        return (logs.exp() * torch.where(at > 1, slope, 1.0) * self.num_steps).to(t.dtype)

    def logsnr(self, t: Tensor) -> Tensor:
        logs, _, at = self._parts(t)
        return (-2 * (logs + torch.where(at > 1, 1.0, at).log())).to(t.dtype)

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        table = to_device(self._logs, logsnr)[1:]
        log_sigma = -logsnr.to(table.dtype) / 2
        first = (log_sigma - table[0]).exp().clamp(max=1)  # t L on the first piece
        if self.num_steps == 1:
            return first.to(logsnr.dtype)
        found = (torch.searchsorted(table, log_sigma) - 1).clamp(0, self.num_steps - 2)
        at = 1 + found + (log_sigma - table[found]) / (table[found + 1] - table[found])
        at = torch.where(log_sigma > table[0], at, first)
        return (at / self.num_steps).clamp(0, 1).to(logsnr.dtype)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha

    def noise_condition(self, t: Tensor) -> Tensor:
        """t L - 1: the integer level k at t = (k+1)/L, a fraction between levels."""
        return (place(t, self.num_steps) - 1).to(t.dtype)

    def snap(self, t: Tensor) -> Tensor:
        """Up to the next level."""
        return up_to_grid(t, self.num_steps)

    def from_uniform(self, u: Tensor) -> Tensor:
        return u  # `snap` goes up, so every level has the same share of [0, 1)

    def _parts(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log sigma (that of the first level below it), its slope by level, and t L."""
        table, at = to_device(self._logs, t), place(t, self.num_steps)
        found = piece(at, self.num_steps)
        slope = table[found + 1] - table[found]  # 0 on the first piece
        return table[found] + (at - found) * slope, slope, at


def check_sigmas(sigma_min: float, sigma_max: float, sigma_data: float) -> None:
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min={sigma_min} and sigma_max={sigma_max} make no noise path; choose 0 < sigma_min < sigma_max."
        )
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data={sigma_data} is no spread of data; choose a number over 0 (1 if normalised).")
