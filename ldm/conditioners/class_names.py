"""From what a user calls a class to its number."""

import re
from collections.abc import Sequence

from ldm.errors import UserError

MOST_SHOWN = 12


def find_class(text: str, names: Sequence[str] | None) -> int:
    """The number of the class that a number, a name or a part of a name stands for.

    A whole name goes before a part of one, and upper case is lower case. A number may be another class's name; #7 is
    class 7 whatever the names are.

    Raises:
        UserError: no class, or several, are called so; it lists them.
    """
    if text.startswith("#") and text[1:].isdecimal():
        return int(text[1:])
    found = [i for i, name in enumerate(names or ()) if name.lower() == text.lower()]
    if re.fullmatch(r"-?[0-9]+", text) and int(text) not in found:
        found.append(int(text))
    if not found:
        found = [i for i, name in enumerate(names or ()) if text and text.lower() in name.lower()]
    if len(found) == 1:
        return found[0]
    if names is None:
        raise UserError(f"The model knows no class names, only numbers, and {text!r} is none: give a class's number.")
    if not found:
        raise UserError(f"There is no class {text!r}: the model knows {listed(range(len(names)), names)}.")
    raise UserError(
        f"{text!r} may be any of {listed(found, names)}: give more of the name, or its number, as it stands here."
    )


def class_title(number: int, name: str | None) -> str:
    """What stands beside pictures of a class: its name where that says more than a number."""
    return name if name and not name.isdecimal() else f"class {name or number}"


def listed(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Classes by number and name, the first dozen."""
    shown = [f"#{i} ({names[i]})" if i < len(names) else f"#{i}" for i in numbers[:MOST_SHOWN]]
    more = len(numbers) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
