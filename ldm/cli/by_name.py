"""Objects of a seam by their class's name, as in `heun:churn=40,spacing=karras`."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import yaml

from ldm.errors import UserError


def leaves(seam: Any) -> Iterator[Any]:
    """The concrete classes below a seam that have been imported."""
    for child in seam.__subclasses__():
        yield from leaves(child)
        if not inspect.isabstract(child):
            yield child


def known(seam: Any) -> dict[str, Any]:
    """The concrete classes of ldm below a seam by their names in lower case, in alphabetical order.

    Every file beside the seam's is imported, so that a class is found as soon as its file is there.
    """
    package = seam.__module__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    found = {leaf.__name__.lower(): leaf for leaf in leaves(seam) if leaf.__module__.startswith("ldm.")}
    return dict(sorted(found.items()))


def make(seam: Any, text: str, what: str, **given: Any) -> Any:
    """The object that NAME or NAME:KEY=VALUE,KEY=VALUE describes; a value that is an object of ours is named likewise.

    Args:
        seam: the ABC.
        text: as the user has written it.
        what: how to call such a thing in a message: "sampler".
        given: arguments that stand elsewhere on the command line.

    Raises:
        UserError: an unknown name or key, or a value that the class refuses.
    """
    name, _, rest = text.partition(":")
    leaf = find(seam, name, what)
    hints = {key: hint for key, hint in get_type_hints(leaf.__init__).items() if key not in ("return", *given)}
    values = dict(given)
    for setting in rest.split(",") if rest else []:
        key, equals, value = setting.partition("=")
        if not equals or key not in hints:
            known_keys = ", ".join(hints) or "no settings"
            raise UserError(f"The {what} {name} takes KEY=VALUE and knows {known_keys}; {setting!r} is neither.")
        values[key] = read(hints[key], value, key)
    try:
        return leaf(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"The {what} {name} refuses its settings: {error}") from None


def find(seam: Any, name: str, what: str) -> Any:
    """The class of that name, in any case."""
    choices = known(seam)
    if name.lower() not in choices:
        raise UserError(f"There is no {what} {name!r}: choose one of {', '.join(choices)}.")
    return choices[name.lower()]


def read(hint: Any, value: str, key: str) -> Any:
    """A value for a parameter: an object of ours where the type is one of our seams, else a number or a word."""
    for part in (hint, *get_args(hint)):
        if inspect.isclass(part) and inspect.isabstract(part) and part.__module__.startswith("ldm."):
            return make(part, value, key)
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"{key}={value} has no value that can be read: write {key}=VALUE.") from None


def listing(seam: Any, title: str) -> str:
    """The concrete classes below a seam, a line each: its name and the first sentence that its docstring says of it."""
    found = known(seam)
    width = max(map(len, found)) + 2
    lines = (f"  {name:<{width}}{first_sentence(leaf)}" for name, leaf in found.items())
    return "\n".join([f"{title}:", *lines])


def first_sentence(leaf: Any) -> str:
    text = " ".join((inspect.getdoc(leaf) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0]


def describe(thing: Any) -> str:
    """An object of ours as code that makes its like."""
    if not type(thing).__module__.startswith("ldm."):
        return str(thing)
    names = inspect.signature(type(thing)).parameters
    settings = ", ".join(f"{name}={describe(getattr(thing, name))}" for name in names)
    return f"{type(thing).__name__}({settings})"
