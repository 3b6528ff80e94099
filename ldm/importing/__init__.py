"""Weights of other code bases, made an export of ours."""

from ldm.importing.door import import_weights

__all__ = ["import_weights"]
