"""The posterior over latents: a Gaussian with a diagonal covariance."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


LEAST_LOGVAR = -30.0  # a standard deviation of 3e-7


@dataclass(eq=False)
class DiagonalGaussian:
    """N(mean, exp(logvar)), mean and logvar both (B, C, h, w).

    The log-variance is clamped to [-30, 20] and half precision is promoted to float32, so that its exponential
    is never infinite nor coarse, under autocast too.
    """

    mean: Tensor
    logvar: Tensor

    def __post_init__(self) -> None:
        self.mean = _at_least_float32(self.mean)
        self.logvar = _at_least_float32(self.logvar).clamp(LEAST_LOGVAR, 20.0)

    @classmethod
    def from_moments(cls, moments: Tensor) -> "DiagonalGaussian":
        """The inverse of `moments()`: from (B, 2C, h, w), the means first."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar)

    @classmethod
    def point(cls, values: Tensor) -> "DiagonalGaussian":
        """All at `values` (B, C, h, w), but for a standard deviation of 3e-7."""
        return cls(values, torch.full_like(values, LEAST_LOGVAR))

    def moments(self) -> Tensor:
        """(B, 2C, h, w): what latent shards store."""
        return torch.cat([self.mean, self.logvar], dim=1)

    @property
    def std(self) -> Tensor:
        return (0.5 * self.logvar).exp()

    @property
    def mode(self) -> Tensor:
        return self.mean

    def sample(self, eps: Tensor) -> Tensor:
        """The sample that standard normal noise `eps`, of the shape of the mean, leads to."""
        return self.mean + self.std * eps

    def kl_values(self) -> Tensor:
        """KL(this || N(0, 1)) of each latent value in nats: (B, C, h, w). Kingma & Welling 2013, appendix B."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1.0 - self.logvar)

    def kl(self) -> Tensor:
        """The same, summed over C, h and w: (B,)."""
        return self.kl_values().flatten(1).sum(1)

    def normalised(self, mean: Tensor, std: Tensor) -> "DiagonalGaussian":
        """The distribution of (z - mean) / std for z of this one; mean and std are per channel, (C,)."""
        mean, std = rearrange(mean, "c -> 1 c 1 1"), rearrange(std, "c -> 1 c 1 1")
        return DiagonalGaussian((self.mean - mean) / std, self.logvar - 2.0 * std.log())
