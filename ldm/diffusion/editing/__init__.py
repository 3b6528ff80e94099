"""Editing with a trained model: start from an image, hold a part of it, go between two."""

from ldm.diffusion.editing.inpaint import Inpaint
from ldm.diffusion.editing.slerp import slerp
from ldm.diffusion.editing.start import begin_at, noised_start

__all__ = ["Inpaint", "begin_at", "noised_start", "slerp"]
