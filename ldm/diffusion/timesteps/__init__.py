"""Timesteps: which times are trained how often."""

from ldm.diffusion.timesteps.base import Timesteps
from ldm.diffusion.timesteps.cos_map import CosMap
from ldm.diffusion.timesteps.log_normal_sigma import LogNormalSigma
from ldm.diffusion.timesteps.logit_normal import LogitNormal
from ldm.diffusion.timesteps.loss_aware import LossAware
from ldm.diffusion.timesteps.mode import Mode
from ldm.diffusion.timesteps.stratified import Stratified
from ldm.diffusion.timesteps.uniform import UniformTimesteps

__all__ = [
    "CosMap",
    "LogNormalSigma",
    "LogitNormal",
    "LossAware",
    "Mode",
    "Stratified",
    "Timesteps",
    "UniformTimesteps",
]
