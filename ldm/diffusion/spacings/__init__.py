"""Spacings: which times a sampler visits."""

from ldm.diffusion.spacings.base import Spacing
from ldm.diffusion.spacings.leading import Leading
from ldm.diffusion.spacings.linspace import Linspace
from ldm.diffusion.spacings.trailing import Trailing

__all__ = ["Leading", "Linspace", "Spacing", "Trailing"]
