"""Samplers: turn noise into data with a Denoise and a path."""

from ldm.diffusion.samplers.base import Noise, Sampler, Step
from ldm.diffusion.samplers.ddim import DDIM
from ldm.diffusion.samplers.ddpm import DDPM
from ldm.diffusion.samplers.euler import Euler
from ldm.diffusion.samplers.spacing import Spacing, time_grid

__all__ = ["DDIM", "DDPM", "Euler", "Noise", "Sampler", "Spacing", "Step", "time_grid"]
