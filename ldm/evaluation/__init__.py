"""Numbers for generated images."""

from ldm.evaluation.precision_recall import precision_recall

__all__ = ["precision_recall"]
