"""Spacings: which times a sampler visits."""

from ldm.diffusion.spacings.base import Spacing
from ldm.diffusion.spacings.leading import Leading
from ldm.diffusion.spacings.linspace import Linspace
from ldm.diffusion.spacings.noise_levels import Karras, LogSNR
from ldm.diffusion.spacings.quadratic import Quadratic
from ldm.diffusion.spacings.tail import Tail
from ldm.diffusion.spacings.time_shift import TimeShift
from ldm.diffusion.spacings.trailing import Trailing

__all__ = ["Karras", "Leading", "Linspace", "LogSNR", "Quadratic", "Spacing", "Tail", "TimeShift", "Trailing"]
