"""Predictions: what a network's output means. Each converts to and from x0 alone."""

from ldm.diffusion.predictions.base import Prediction
from ldm.diffusion.predictions.eps import Eps
from ldm.diffusion.predictions.preconditioned import Preconditioned
from ldm.diffusion.predictions.score import Score
from ldm.diffusion.predictions.v import V
from ldm.diffusion.predictions.velocity import Velocity
from ldm.diffusion.predictions.x0 import X0

__all__ = ["X0", "Eps", "Preconditioned", "Prediction", "Score", "V", "Velocity"]
