"""Weightings: how much each noise level counts in the loss."""

from ldm.diffusion.weightings.base import Weighting
from ldm.diffusion.weightings.edm import EDMWeighting
from ldm.diffusion.weightings.flow_density import FlowDensity
from ldm.diffusion.weightings.min_snr import MinSNR
from ldm.diffusion.weightings.p2 import P2
from ldm.diffusion.weightings.score_matching import ScoreMatching
from ldm.diffusion.weightings.sigmoid import SigmoidWeighting
from ldm.diffusion.weightings.soft_min_snr import SoftMinSNR
from ldm.diffusion.weightings.truncated_snr import TruncatedSNR
from ldm.diffusion.weightings.uniform import Uniform

__all__ = [
    "P2",
    "EDMWeighting",
    "FlowDensity",
    "MinSNR",
    "ScoreMatching",
    "SigmoidWeighting",
    "SoftMinSNR",
    "TruncatedSNR",
    "Uniform",
    "Weighting",
]
