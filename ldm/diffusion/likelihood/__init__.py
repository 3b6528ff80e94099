"""Likelihood: how probable a model holds data, by two bounds and exactly."""

from ldm.diffusion.likelihood.adaptive_ode import AdaptiveODE
from ldm.diffusion.likelihood.base import Likelihood, Term, bits, total
from ldm.diffusion.likelihood.continuous import Continuous
from ldm.diffusion.likelihood.discrete import Discrete
from ldm.diffusion.likelihood.ode import ODE

__all__ = ["ODE", "AdaptiveODE", "Continuous", "Discrete", "Likelihood", "Term", "bits", "total"]
