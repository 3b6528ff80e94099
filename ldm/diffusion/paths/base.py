"""The seam of every noise path."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ldm.diffusion.shapes import per_sample


class NoisePath(ABC):
    """x_t = alpha(t) x0 + sigma(t) eps for t in [0, 1]: t = 0 is data, t = 1 is noise.

    logsnr(t) falls strictly. The functions of t take a tensor of any shape and return the same shape, dtype
    and device; 0-dim float64 tensors on the CPU, which the samplers use for their coefficients, are welcome.
    The general form is Kingma et al. 2021 (arXiv 2107.00630), section 3.1.
    """

    num_steps: int | None = None  # T of a discrete path, None where time is continuous
    t_min: float  # a network is trained and asked at t_min <= t <= t_max only
    t_max: float

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """How much of the data is in x_t; alpha(0) = 1."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise in x_t; sigma(0) = 0."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt. May be infinite at t = 0, which no sampler asks for."""

    @abstractmethod
    def logsnr(self, t: Tensor) -> Tensor:
        """2 log(alpha / sigma), accurate at both ends; +inf where sigma = 0, -inf where alpha = 0."""

    @abstractmethod
    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        """The inverse of `logsnr`, in [0, 1]; values outside the path's range give the nearer end."""

    def noise_condition(self, t: Tensor) -> Tensor:
        """What a network hears instead of t: 1000 t, the range that sinusoidal embeddings are made for."""
        return 1000 * t

    def snap(self, t: Tensor) -> Tensor:
        """The time of this path that stands for any t in [0, 1]: here, t clamped to [t_min, t_max]."""
        return t.clamp(self.t_min, self.t_max)

    @property
    def prior_std(self) -> float:
        """Standard deviation of x at t_max for unit-variance data: sampling starts from eps * prior_std."""
        t = torch.tensor(self.t_max, dtype=torch.float64)
        return math.hypot(float(self.alpha(t)), float(self.sigma(t)))

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t for x0 and eps (B, ...) and t (B,); keeps the dtype of x0."""
        return per_sample(self.alpha(t), x0) * x0 + per_sample(self.sigma(t), x0) * eps

    def implied_eps(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise that makes x_t out of x0 at t > 0, for t (B,) or 0-dim: the inverse of `add_noise`."""
        return (x_t - per_sample(self.alpha(t), x_t) * x0) / per_sample(self.sigma(t), x_t)
