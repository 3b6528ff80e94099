"""The mathematics of diffusion, on torch alone. docs/math.md is its companion."""

from ldm.diffusion.cold import ColdDiffusion
from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.process import Diffusion, Process

__all__ = ["ColdDiffusion", "Denoise", "Denoised", "Diffusion", "Process"]
