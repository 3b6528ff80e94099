"""What stands beside the images of a grid: what all of them share, each column, each row, or each image."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldm.conditioners.class_names import class_title


class Labels(NamedTuple):
    """Texts for `ldm.images.grid`."""

    titles: list[str]  # of the columns, or of all images
    row_titles: list[str]
    heading: str


def labels(facts: Sequence[Mapping[str, Any]], columns: int) -> Labels:
    """Each thing that is known of the images, said once where it is true.

    Args:
        facts: of each image, its text entries, and its "scale" and "seed" where they are to be shown.
        columns: columns of the grid.
    """
    rows = range(0, len(facts), columns)
    texts = [shown(fact) for fact in facts]
    parts: dict[str, list[str]] = {"all": [], "column": [], "row": [], "image": []}
    for name in dict.fromkeys(name for text in texts for name in text):
        parts[where([text.get(name, "") for text in texts], columns)].append(name)
    each = parts["column"] + parts["image"] if parts["image"] else parts["column"]
    titled = texts if parts["image"] else texts[:columns]
    return Labels(
        [joined(text, each) for text in titled],
        [joined(texts[row], parts["row"]) for row in rows] if parts["row"] else [],
        joined(texts[0], parts["all"]),
    )


def where(texts: Sequence[str], columns: int) -> str:
    """Where a text stands that may differ from image to image."""
    if len(set(texts)) == 1:
        return "all"
    if all(len(set(texts[column::columns])) <= 1 for column in range(columns)):
        return "column"
    if all(len(set(texts[row : row + columns])) == 1 for row in range(0, len(texts), columns)):
        return "row"
    return "image"


def shown(fact: Mapping[str, Any]) -> dict[str, str]:
    """The facts of one image as a person reads them."""
    found = {}
    for name, value in fact.items():
        bare = name.removeprefix("negative ")
        if bare == "class":
            text = class_title(value, fact.get(f"{name} name"))
        elif bare == "class name":
            continue
        else:
            text = str(value) if bare == "prompt" else f"{name} {value}"
        found[name] = text if bare == name else f"not: {text}"
    return found


def joined(text: Mapping[str, str], names: Sequence[str]) -> str:
    return ", ".join(text[name] for name in names if text.get(name))
