"""Paths: how data turn into noise."""

from ldm.diffusion.paths.alpha_bars import DiscreteCosine, Laplace, SigmoidAlphaBar
from ldm.diffusion.paths.base import NoisePath, Path
from ldm.diffusion.paths.betas import Betas, Constant, Exponential, Linear, Quadratic, ScaledLinear, SigmoidBetas
from ldm.diffusion.paths.cosine import Cosine
from ldm.diffusion.paths.discrete import DiscretePath
from ldm.diffusion.paths.learned import LearnedSchedule
from ldm.diffusion.paths.level import Level, level, level_at, levels
from ldm.diffusion.paths.rectified_flow import RectifiedFlow
from ldm.diffusion.paths.respaced import Respaced
from ldm.diffusion.paths.shifted import Shifted
from ldm.diffusion.paths.ve import EDM, VE, NoiseLevels
from ldm.diffusion.paths.vp_sde import VPSDE, SubVP

__all__ = [
    "EDM",
    "VE",
    "VPSDE",
    "Betas",
    "Constant",
    "Cosine",
    "DiscreteCosine",
    "DiscretePath",
    "Exponential",
    "Laplace",
    "LearnedSchedule",
    "Level",
    "Linear",
    "NoiseLevels",
    "NoisePath",
    "Path",
    "Quadratic",
    "RectifiedFlow",
    "Respaced",
    "ScaledLinear",
    "Shifted",
    "SigmoidAlphaBar",
    "SigmoidBetas",
    "SubVP",
    "level",
    "level_at",
    "levels",
]
