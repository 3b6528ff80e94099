"""Variances: how far a reverse step spreads."""

from ldm.diffusion.variances.base import Variance
from ldm.diffusion.variances.fixed import FixedLarge, FixedSmall
from ldm.diffusion.variances.learned_range import LearnedRange

__all__ = ["FixedLarge", "FixedSmall", "LearnedRange", "Variance"]
