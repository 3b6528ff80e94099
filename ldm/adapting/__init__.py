"""Starting a new run from the weights of another model, as far as they fit."""

from ldm.adapting.adapt import adapt
from ldm.adapting.report import Report

__all__ = ["Report", "adapt"]
