"""Guidance: rules that turn one Denoise into another."""

from ldm.diffusion.guidance.base import Contrast, Guidance, guide
from ldm.diffusion.guidance.classifier_free import ClassifierFree

__all__ = ["ClassifierFree", "Contrast", "Guidance", "guide"]
