"""Noise paths: how data turn into noise."""

from ldm.diffusion.paths.base import NoisePath
from ldm.diffusion.paths.cosine import Cosine
from ldm.diffusion.paths.discrete import DiscretePath, Linear, ScaledLinear
from ldm.diffusion.paths.rectified_flow import RectifiedFlow

__all__ = ["Cosine", "DiscretePath", "Linear", "NoisePath", "RectifiedFlow", "ScaledLinear"]
