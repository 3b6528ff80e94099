"""Squared error."""

from torch import Tensor

from ldm.diffusion.errors.base import Error


class MSE(Error):
    """Mean of (output - target)^2 (Ho et al. 2020, arXiv 2006.11239, eq. 14)."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().flatten(1).mean(1)
