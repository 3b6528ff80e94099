"""Errors: how the distance of an output from its target is measured."""

from ldm.diffusion.errors.base import Error
from ldm.diffusion.errors.mse import MSE

__all__ = ["MSE", "Error"]
