"""Weightings: how much each noise level counts in the loss."""

from ldm.diffusion.weightings.base import Weighting
from ldm.diffusion.weightings.min_snr import MinSNR
from ldm.diffusion.weightings.uniform import Uniform

__all__ = ["MinSNR", "Uniform", "Weighting"]
