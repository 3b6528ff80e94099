"""The files of frozen encoders that a model block names: found where the block lies, and carried along by an export."""

import pydoc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldm.exports import ENCODERS
from ldm.trust import own_object


def named_files(node: Any, trust_code: bool = False) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Each argument in a model block that names a file of a frozen part, as its class's `file_arguments` say.

    Yields:
        the init_args, the argument's name, the class.
    """
    if isinstance(node, list):
        for item in node:
            yield from named_files(item, trust_code)
    elif isinstance(node, dict):
        made, arguments = class_of(node.get("class_path"), trust_code), node.get("init_args")
        for name in getattr(made, "file_arguments", ()):
            if isinstance(arguments, dict) and isinstance(arguments.get(name), str):
                yield arguments, name, made
        for value in node.values():
            yield from named_files(value, trust_code)


def class_of(name: Any, trust_code: bool) -> Any:
    """The class that a class_path names; None of one from outside ldm, unless the caller trusts it."""
    if own := own_object(name):
        return own
    return pydoc.locate(name) if trust_code and isinstance(name, str) else None


def locate_files(model: Any, folder: Path, trust_code: bool = False) -> None:
    """Replace relative paths by where they lead from `folder` (an export carries its files), the working directory or
    a folder above `folder`. What is nowhere stays as it is: who needs it will name it."""
    for arguments, name, _ in named_files(model, trust_code):
        path = Path(arguments[name]).expanduser()
        places = [folder / path, path, *(parent / path for parent in folder.resolve().parents)]
        arguments[name] = str(next((place for place in places if place.exists()), path))


def gather_files(model: Any, trust_code: bool = False) -> dict[str, Path]:
    """Let the block name its files by where they will stand in an export.

    Returns:
        the files to copy, by their places in the export.
    """
    places: dict[Path, str] = {}  # of each file or folder that is named
    copies: dict[str, Path] = {}
    for arguments, name, made in named_files(model, trust_code):
        source = Path(arguments[name]).expanduser().resolve()
        if source not in places:
            taken = f"{ENCODERS}/{source.name}" in places.values()
            places[source] = f"{ENCODERS}/{len(places)}-{source.name}" if taken else f"{ENCODERS}/{source.name}"
            files = made.parts(source) if source.is_dir() else [source]
            copies |= {str(Path(places[source]) / file.relative_to(source)): file for file in files}
        arguments[name] = places[source]
    return copies
