"""Any path with more noise, or less, at every time."""

import math

import torch
from torch import Tensor

from ldm.diffusion.paths.base import NoisePath
from ldm.diffusion.paths.cosine import Cosine


class Shifted(NoisePath):
    """logsnr(t) of another path plus a number, at the same t and with the network hearing the same.

    What is kept of the other path is its `norm`: (alpha, k sigma) / norm(alpha, k sigma) with k = exp(-shift / 2).
    Larger images need more noise to lose as much, so their shift is under 0. It can be said in three ways, which
    add up: shift = logsnr_shift - 2 log(size_ratio) - 2 log(time_shift).

    Args:
        path: The path to shift; left out, Cosine.
        logsnr_shift: The number itself.
        size_ratio: Side of the images over the side that the path was made for, over 0 (Hoogeboom et al. 2023,
            arXiv 2301.11093, section 3.1: logsnr + 2 log(64 / size)).
        time_shift: Shift s of Stable Diffusion 3, over 0 (Esser et al. 2024, arXiv 2403.03206, eq. 23): on
            RectifiedFlow it is the path at t' = s t / (1 + (s - 1) t).
    """

    def __init__(
        self,
        path: NoisePath | None = None,
        logsnr_shift: float = 0.0,
        size_ratio: float = 1.0,
        time_shift: float = 1.0,
    ) -> None:
        self.path = Cosine() if path is None else path
        if self.path.learns:
            raise ValueError(
                f"{type(self.path).__name__} finds its own noise levels, and a shift of it would hide its weights from "
                "the optimizer; use it without Shifted."
            )
        if not math.isfinite(logsnr_shift):
            raise ValueError(f"logsnr_shift={logsnr_shift} leaves no path; choose a finite number (0 is no shift).")
        for option, ratio in (("size_ratio", size_ratio), ("time_shift", time_shift)):
            if not 0 < ratio < math.inf:
                raise ValueError(f"{option}={ratio} is no ratio; choose a number over 0 (1 is no shift).")
        self.logsnr_shift, self.size_ratio, self.time_shift = logsnr_shift, size_ratio, time_shift
        self.num_steps, self.t_min, self.t_max = self.path.num_steps, self.path.t_min, self.path.t_max
        self.rho, self.sigma_data, self.scaled_input = self.path.rho, self.path.sigma_data, self.path.scaled_input

    @property
    def shift(self) -> float:
        """What is added to logsnr."""
        return self.logsnr_shift - 2 * math.log(self.size_ratio) - 2 * math.log(self.time_shift)

    def alpha(self, t: Tensor) -> Tensor:
        alpha, sigma = self._unnormed(t)
        return alpha / self.path.norm(alpha, sigma)

    def sigma(self, t: Tensor) -> Tensor:
        alpha, sigma = self._unnormed(t)
        return sigma / self.path.norm(alpha, sigma)

    def alpha_dot(self, t: Tensor) -> Tensor:
        # The quotient rule, with norm = alpha d norm / d alpha + sigma d norm / d sigma as it is homogeneous.
        t = t.clamp(min=1e-6)  # at 0 sigma_dot may be infinite, alpha_dot is not
        _, by_sigma, turn = self._slopes(t)
        return -by_sigma * turn

    def sigma_dot(self, t: Tensor) -> Tensor:
        by_alpha, _, turn = self._slopes(t)
        return by_alpha * turn

    def logsnr(self, t: Tensor) -> Tensor:
        return self.path.logsnr(t) + self.shift

    def logsnr_dot(self, t: Tensor) -> Tensor:
        return self.path.logsnr_dot(t)

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        return self.path.t_from_logsnr(logsnr - self.shift)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.path.norm(alpha, sigma)

    def noise_condition(self, t: Tensor) -> Tensor:
        return self.path.noise_condition(t)

    def snap(self, t: Tensor) -> Tensor:
        return self.path.snap(t)

    def from_uniform(self, u: Tensor) -> Tensor:
        return self.path.from_uniform(u)

    def _unnormed(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.path.alpha(t), math.exp(-self.shift / 2) * self.path.sigma(t)

    def _slopes(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both partial derivatives of norm, and (alpha sigma' - sigma alpha') / norm^2, before norming."""
        k = math.exp(-self.shift / 2)
        alpha, sigma = self._unnormed(t)
        found = torch.func.vjp(self.path.norm, alpha, sigma)
        length, pull = found[0], found[1]
        by_alpha, by_sigma = pull(torch.ones_like(length))
        turn = alpha * k * self.path.sigma_dot(t) - sigma * self.path.alpha_dot(t)
        return by_alpha, by_sigma, turn / length.square()
