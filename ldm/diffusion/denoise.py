"""The one thing a sampler or a guidance rule sees of a model: a callable that estimates the clean data."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Denoised:
    """What a denoiser answers for a batch x_t.

    x0 is the estimate of the clean data, shaped like x_t. variance holds the raw extra channels of a network
    that also learns the reverse variance (same shape), and is None for every other network.
    """

    x0: Tensor
    variance: Tensor | None = None


# (x_t (B, C, ...), t (B,) in [0, 1]) -> Denoised. The conditions are inside: one Denoise is one condition.
Denoise = Callable[[Tensor, Tensor], Denoised]
