"""Guidance: wraps a Denoise and is a Denoise."""

from ldm.diffusion.guidance.classifier_free import ClassifierFree

__all__ = ["ClassifierFree"]
