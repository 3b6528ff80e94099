"""Objectives: what a network is trained to make small."""

from ldm.diffusion.objectives.base import Example, Objective
from ldm.diffusion.objectives.simple import Simple

__all__ = ["Example", "Objective", "Simple"]
