"""Timesteps: which times are trained how often."""

from ldm.diffusion.timesteps.base import Timesteps
from ldm.diffusion.timesteps.logit_normal import LogitNormal
from ldm.diffusion.timesteps.uniform import UniformTimesteps

__all__ = ["LogitNormal", "Timesteps", "UniformTimesteps"]
