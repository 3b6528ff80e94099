"""Weights as other code bases name them. A layout is one file here with a leaf of `Layout`; nothing to register."""

import pkgutil
from collections.abc import Collection
from importlib import import_module

from ldm.networks.layouts.base import Layout

__all__ = ["Layout", "layouts", "recognise"]


def layouts() -> dict[str, Layout]:
    """One of each leaf of `Layout`, by the name of its file."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for thing in vars(import_module(f"{__name__}.{module.name}")).values():
            if isinstance(thing, type) and issubclass(thing, Layout) and thing is not Layout:
                found[thing.__module__.rpartition(".")[2]] = thing()
    return found


def recognise(keys: Collection[str]) -> str | None:
    """The name of the layout that weights with these keys are in, as of `layouts`, or None."""
    return next((name for name, layout in layouts().items() if layout.matches(keys)), None)
