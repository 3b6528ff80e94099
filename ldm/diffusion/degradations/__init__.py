"""Degradations: paths that spoil images by something other than noise (cold diffusion)."""

from ldm.diffusion.degradations.base import Degradation
from ldm.diffusion.degradations.blur import Blur
from ldm.diffusion.degradations.fade import Fade
from ldm.diffusion.degradations.pixelation import Pixelation

__all__ = ["Blur", "Degradation", "Fade", "Pixelation"]
