"""The one thing a sampler or a guidance rule sees of a model: a callable that estimates the clean data."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class Denoised:
    """What a denoiser answers for a batch x_t.

    Attributes:
        x0: the estimate of the clean data, shaped like x_t.
        variance: the raw extra channels of a network that also learns the reverse variance (same shape), None for
            every other network.
        x_t: where a rule moves the state itself (CFG++, inpainting): what the sampler is to go on from in place of
            the x_t it has asked about; None where it stays.
    """

    x0: Tensor
    variance: Tensor | None = None
    x_t: Tensor | None = None


# (x_t (B, C, ...), t in [0, 1]: (B,), or 0-dim for one time of the whole batch, then perhaps float64 on the CPU)
# -> Denoised. The conditions are inside: one Denoise is one condition.
Denoise = Callable[[Tensor, Tensor], Denoised]
