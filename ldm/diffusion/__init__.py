"""The mathematics of diffusion, on torch alone. docs/math.md is its one-page companion."""

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.process import Diffusion

__all__ = ["Denoise", "Denoised", "Diffusion"]
