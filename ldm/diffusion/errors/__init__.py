"""Errors: how the distance of an output from its target is measured."""

from ldm.diffusion.errors.base import Error
from ldm.diffusion.errors.huber import Huber, PseudoHuber
from ldm.diffusion.errors.l1 import L1
from ldm.diffusion.errors.mse import MSE
from ldm.diffusion.errors.velocity_direction import VelocityDirection

__all__ = ["L1", "MSE", "Error", "Huber", "PseudoHuber", "VelocityDirection"]
