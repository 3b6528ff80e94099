"""Absolute error."""

from torch import Tensor

from ldm.diffusion.errors.base import Error


class L1(Error):
    """Mean of |output - target|; the best x0 is then the median and no longer the mean of what is possible."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().flatten(1).mean(1)
