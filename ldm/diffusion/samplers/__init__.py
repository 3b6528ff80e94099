"""Samplers: turn noise into data with a Denoise and a path."""

from ldm.diffusion.samplers.base import Noise, Sampler, Step
from ldm.diffusion.samplers.ddim import DDIM
from ldm.diffusion.samplers.ddpm import DDPM
from ldm.diffusion.samplers.euler import Euler

__all__ = ["DDIM", "DDPM", "Euler", "Noise", "Sampler", "Step"]
