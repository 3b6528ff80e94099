"""Objects of a seam by their class's name, as in `heun:churn=40,spacing=karras`."""

import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

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

    A comma within brackets belongs to its value, any other ends it; so an object inside can have one setting.

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
    hints = {key: hint for key, hint in settable(leaf).items() if key not in given}
    values = dict(given)
    for setting in re.split(r",(?![^\[]*\])", rest) if rest else []:
        key, equals, value = setting.partition("=")
        if not equals or key not in hints:
            known_keys = ", ".join(hints) or "no settings"
            raise UserError(f"The {what} {name} takes KEY=VALUE and knows {known_keys}; {setting!r} is neither.")
        if key in values:
            raise UserError(f"The {what} {name} is given {key} twice: leave one of them out.")
        values[key] = read(hints[key], value, key)
    try:
        return leaf(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"The {what} {name} refuses its settings: {' '.join(str(error).split())}") from None


def settable(leaf: Any) -> dict[str, Any]:
    """The arguments of a class that can be written as text, with their types: all but functions."""
    hints = get_type_hints(leaf.__init__)
    return {key: hint for key, hint in hints.items() if key != "return" and set(kinds(hint)) - {type(None), Callable}}


def kinds(hint: Any) -> list[Any]:
    """The types that a hint allows; of list[int] and Callable[..., ...] what stands before the bracket."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [get_origin(part) or part for part in parts]


def find(seam: Any, name: str, what: str) -> Any:
    """The class of that name, in any case."""
    choices = known(seam)
    if name.lower() not in choices:
        raise UserError(f"There is no {what} {name!r}: choose one of {', '.join(choices)}.")
    return choices[name.lower()]


def read(hint: Any, value: str, key: str) -> Any:
    """A value of a type that the hint allows: an object of ours by its name, a number, yes or no, a list, a word."""
    allowed = kinds(hint)
    for kind in allowed:
        if inspect.isclass(kind) and inspect.isabstract(kind) and kind.__module__.startswith("ldm."):
            return make(kind, value, key)
    if type(None) in allowed and value.lower() in ("none", "null"):
        return None
    for kind, convert in CONVERSIONS.items():
        if kind in allowed:
            try:
                return convert(value)
            except (ValueError, KeyError, yaml.YAMLError):
                continue
    raise UserError(f"{key}={value} is not {' or '.join(WORDS[kind] for kind in CONVERSIONS if kind in allowed)}.")


def listed(value: str) -> list[float]:
    """The numbers of a list in brackets."""
    found = yaml.safe_load(value)
    if not isinstance(found, list):
        raise ValueError(value)
    return [float(item) for item in found]


CONVERSIONS: dict[Any, Callable[[str], Any]] = {
    bool: lambda value: {"true": True, "false": False}[value.lower()],
    int: int,
    float: float,
    list: listed,
    str: str,
}
WORDS = {bool: "true or false", int: "a whole number", float: "a number", list: "a list such as [1,2]", str: "a word"}


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
