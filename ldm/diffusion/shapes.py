"""One number per sample, broadcast over a batch of any rank."""

from torch import Tensor


def per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a coefficient (B,) as (B, 1, ..., 1) in x's dtype, so that `coefficient * x` keeps x's dtype.

    A 0-dim coefficient is returned as it is: torch does not let it change the dtype of x, and it may stay
    on the CPU in float64 while x is elsewhere.
    """
    if coefficient.dim() == 0:
        return coefficient
    return coefficient.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
