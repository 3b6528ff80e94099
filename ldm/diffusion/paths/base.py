"""The seams of everything that leads from data to their loss: any `Path`, and the Gaussian `NoisePath`."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ldm.diffusion.shapes import per_sample


class Path(ABC):
    """How data are spoiled over time t in [0, 1]: t = 0 is data, at t = 1 nothing of them is left (or little)."""

    num_steps: int | None = None  # T of a discrete path, None where time is continuous
    t_min: float  # a network is trained and asked at t_min <= t <= t_max only
    t_max: float
    rho: float = 1.0  # samplers space their steps evenly in t ** (1 / rho), unless told otherwise

    @abstractmethod
    def corrupt(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t for x0 and standard normal eps (B, ...) and t (B,) or 0-dim; keeps the dtype of x0."""

    @abstractmethod
    def start(self, eps: Tensor) -> Tensor:
        """What sampling starts from at t_max, for standard normal eps (B, ...)."""

    def noise_condition(self, t: Tensor) -> Tensor:
        """What a network hears instead of t: 1000 t, the range that sinusoidal embeddings are made for."""
        return 1000 * t

    def net_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, ...) as a network sees it: scaled to about unit variance where x_t is not, t (B,) or 0-dim."""
        return x_t

    def snap(self, t: Tensor) -> Tensor:
        """The time of this path that stands for any t in [0, 1]: here, t clamped to [t_min, t_max]."""
        return t.clamp(self.t_min, self.t_max)

    def from_uniform(self, u: Tensor) -> Tensor:
        """Uniform u in [0, 1) to uniform times between t_min and t_max (to be snapped)."""
        return self.t_min + u * (self.t_max - self.t_min)


class NoisePath(Path):
    """x_t = alpha(t) x0 + sigma(t) eps for t in [0, 1]: t = 0 is data, t = 1 is noise.

    logsnr(t) falls strictly. The functions of t take a tensor of any shape and return the same shape, dtype
    and device; 0-dim float64 tensors on the CPU, which the samplers use for their coefficients, are welcome.
    The general form is Kingma et al. 2021 (arXiv 2107.00630), section 3.1.
    """

    sigma_data: float = 1.0  # standard deviation of the data the path is made for; its one owner
    scaled_input: bool = False  # networks see x_t divided by its standard deviation (paths whose noise explodes)
    learns: bool = False  # the path is a module whose weights `relative_slope` trains

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

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Homogeneous of degree 1, and 1 all along the path: here sqrt(alpha^2 + sigma^2), variance preserving.

        It tells how a path of the same kind goes on at other noise levels (see `Shifted`).
        """
        return torch.hypot(alpha, sigma)

    def logsnr_dot(self, t: Tensor) -> Tensor:
        """d logsnr / dt, below 0; infinite where logsnr is."""
        return 2 * (self.alpha_dot(t) / self.alpha(t) - self.sigma_dot(t) / self.sigma(t))

    def relative_slope(self, t: Tensor) -> Tensor:
        """1 for each of t (B,), with a gradient to the weights of a path that learns; other paths have none.

        The gradient is that of log(d logsnr / dt) at the noise levels which t stands for, the levels held fixed.
        Everything else that a path that learns returns is detached from its weights.
        """
        return torch.ones_like(t)

    @property
    def prior_std(self) -> float:
        """Standard deviation of x at t_max for data of `sigma_data`: sampling starts from eps * prior_std."""
        t = torch.tensor(self.t_max, dtype=torch.float64)
        return math.hypot(float(self.alpha(t)) * self.sigma_data, float(self.sigma(t)))

    def start(self, eps: Tensor) -> Tensor:
        return eps * self.prior_std

    def net_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        if not self.scaled_input:
            return x_t
        return x_t / per_sample(torch.hypot(self.alpha(t) * self.sigma_data, self.sigma(t)), x_t)

    def corrupt(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return per_sample(self.alpha(t), x0) * x0 + per_sample(self.sigma(t), x0) * eps

    def implied_eps(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise that makes x_t out of x0 at t > 0, for t (B,) or 0-dim: the inverse of `corrupt`."""
        return (x_t - per_sample(self.alpha(t), x_t) * x0) / per_sample(self.sigma(t), x_t)
