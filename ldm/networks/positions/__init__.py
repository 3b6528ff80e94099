"""Embeddings of a token's place, one in each file; they resize to any grid and aspect ratio."""

from ldm.networks.positions.base import Positions
from ldm.networks.positions.fractional import Fractional
from ldm.networks.positions.learned import Learned
from ldm.networks.positions.none import NoPositions
from ldm.networks.positions.sincos import SinCos

__all__ = ["Fractional", "Learned", "NoPositions", "Positions", "SinCos"]
