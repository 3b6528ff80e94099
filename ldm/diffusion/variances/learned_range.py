"""The variance that a network with twice the channels has learned."""

from torch import Tensor, float32, promote_types

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.shapes import per_sample
from ldm.diffusion.variances.base import Variance, log_large, log_small


class LearnedRange(Variance):
    """Between small and large on the log scale, at v = (raw + 1) / 2 (Nichol and Dhariwal 2021, 2102.09672, eq. 15)."""

    learned = True

    def log_variance(self, path: NoisePath, t: Tensor, s: Tensor, raw: Tensor | None) -> Tensor:
        if raw is None:
            raise ValueError(
                "LearnedRange needs a network that learns the variance, and this one returns none: build it with "
                "learned_variance, or use FixedSmall."
            )
        raw = raw.to(promote_types(raw.dtype, float32))  # a variance is its exponential: half precision would be coarse
        share = (raw + 1) / 2
        low, high = per_sample(log_small(path, t, s), raw), per_sample(log_large(path, t, s), raw)
        return share * high + (1 - share) * low
