"""Which code a config that came with a model may make run: that of ldm's own classes, and no other."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

AUTOENCODER_LOADER = "ldm.runs.load_autoencoder"  # the one function that a config may name


def foreign_names(node: Any, hint: Any = None) -> Iterator[str]:
    """What in a model block would make the parser import something from outside ldm, or read a further file.

    Args:
        node: a value of the block.
        hint: the type that it is for. Where that leaves room for text, a string is only text; elsewhere it is the
            short form of a class_path.
    """
    if isinstance(node, str):
        if not takes_text(hint) and own_object(node) is None:
            yield node
    elif isinstance(node, list):
        for item in node:
            yield from foreign_names(item, hint)
    elif isinstance(node, dict) and "class_path" in node:
        yield from foreign_in_class(node)
    elif isinstance(node, dict):
        for value in node.values():
            yield from foreign_names(value)


def foreign_in_class(node: dict[str, Any]) -> Iterator[str]:
    """The same of a {class_path, init_args} block, whose arguments have the types that the class declares."""
    made = own_object(node["class_path"])
    if made is None:
        yield str(node["class_path"])
        return
    arguments = node.get("init_args") or {}
    if node["class_path"] == AUTOENCODER_LOADER and isinstance(arguments, dict) and arguments.get("trust_code"):
        yield "an autoencoder with trust_code"
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    for key, value in node.items():
        if key == "init_args" and isinstance(value, dict):
            for name, argument in value.items():
                yield from foreign_names(argument, hints.get(name))
        elif key != "class_path":
            yield from foreign_names(value)


def takes_text(hint: Any) -> bool:
    """Whether a type has room for plain text: str, a Literal, or either within an Optional, a list and the like."""
    return hint is str or get_origin(hint) is Literal or any(takes_text(part) for part in get_args(hint))


def own_object(name: Any) -> Any:
    """The class of ldm, or the loader, that a dotted name stands for; None if it is neither."""
    module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not module.startswith("ldm."):
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError:
        return None
    own_class = inspect.isclass(found) and found.__module__.startswith("ldm.")
    return found if own_class or name == AUTOENCODER_LOADER else None
