"""Weights of autoencoders as other code bases name them: one file here is one leaf of `Layout`; nothing to register."""

from collections.abc import Collection
from typing import Any

from ldm.nn.layout import Layout, leaves, recognised

__all__ = ["Layout", "layouts", "recognise"]


def layouts() -> dict[str, Layout[Any]]:
    """One of each leaf of `Layout`, by the name of its file."""
    return leaves(__name__)


def recognise(keys: Collection[str]) -> str | None:
    """The name of the layout that weights with these keys are in, as of `layouts`, or None."""
    return recognised(layouts(), keys)
