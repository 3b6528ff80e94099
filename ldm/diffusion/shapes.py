"""Numbers and batches: one number per sample, and sums of two batches."""

from functools import lru_cache

import torch
from torch import Tensor


def per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a coefficient (B,) as (B, 1, ..., 1) in x's dtype, so that `coefficient * x` keeps x's dtype.

    A 0-dim coefficient is returned as it is: torch does not let it change the dtype of x, and it may stay
    on the CPU in float64 while x is elsewhere.
    """
    if coefficient.dim() == 0:
        return coefficient
    return coefficient.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


@lru_cache(maxsize=10_000)
def scalar(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A 0-dim tensor on the CPU, one and the same for the same value: torch takes it twice as fast as a float."""
    with torch.inference_mode(False):  # a rule may want gradients
        return torch.tensor(value, dtype=dtype)


def affine(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """a x + b y for batches of one shape, in x's dtype."""
    return (x * scalar(a, x.dtype)).add_(y, alpha=b)
