"""Objectives: what a network is trained to make small."""

from ldm.diffusion.objectives.base import Example, Objective
from ldm.diffusion.objectives.continuous_bound import ContinuousBound
from ldm.diffusion.objectives.hybrid import Hybrid
from ldm.diffusion.objectives.learned_uncertainty import LearnedUncertainty
from ldm.diffusion.objectives.simple import Simple
from ldm.diffusion.objectives.variational_bound import VariationalBound

__all__ = ["ContinuousBound", "Example", "Hybrid", "LearnedUncertainty", "Objective", "Simple", "VariationalBound"]
