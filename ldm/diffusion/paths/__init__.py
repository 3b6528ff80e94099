"""Paths: how data turn into noise."""

from ldm.diffusion.paths.base import NoisePath, Path
from ldm.diffusion.paths.cosine import Cosine
from ldm.diffusion.paths.discrete import DiscretePath, Linear, ScaledLinear
from ldm.diffusion.paths.level import Level, level, level_at, levels
from ldm.diffusion.paths.rectified_flow import RectifiedFlow

__all__ = [
    "Cosine",
    "DiscretePath",
    "Level",
    "Linear",
    "NoisePath",
    "Path",
    "RectifiedFlow",
    "ScaledLinear",
    "level",
    "level_at",
    "levels",
]
