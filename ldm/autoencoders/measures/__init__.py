"""What validation measures of an autoencoder. A measure is one file with a leaf of `Measure`; nothing to register."""

from ldm.autoencoders.measures.base import Measure
from ldm.autoencoders.measures.code_use import CodeUse, code_counts, use_of
from ldm.autoencoders.measures.frechet import FrechetDistance
from ldm.autoencoders.measures.latents import LatentShape
from ldm.autoencoders.measures.lpips import LPIPSDistance
from ldm.autoencoders.measures.pixels import PixelQuality

__all__ = [
    "CodeUse",
    "FrechetDistance",
    "LPIPSDistance",
    "LatentShape",
    "Measure",
    "PixelQuality",
    "code_counts",
    "use_of",
]
