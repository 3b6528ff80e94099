"""What became of the weights that a run starts from."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ldm.atomic import write_bytes

NUMBERED = re.compile(r"\.\d+(?=\.)")
SHOWN = 12  # lines of a kind in the table; the file has them all


@dataclass(frozen=True)
class Entry:
    """A tensor of the new model, or one of the source that nothing used.

    Attributes:
        name: by its state-dict name.
        shape: in the model that it is of.
        before: shape in the source, where it was changed.
        how: by what it was changed.
    """

    name: str
    shape: tuple[int, ...]
    before: tuple[int, ...] | None = None
    how: str = ""


@dataclass
class Report:
    """Which weights were kept, changed and initialised, and which the source had for nothing.

    Attributes:
        source: where the weights came from.
        kept: as they were.
        resized: brought to another shape or order.
        initialised: with no part in the source; as a new model has them.
        unused: of the source, with no part in the new model.
        notes: what else is not as it was when the weights were trained.
    """

    source: str
    kept: list[Entry] = field(default_factory=list)
    resized: list[Entry] = field(default_factory=list)
    initialised: list[Entry] = field(default_factory=list)
    unused: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> Table:
        """For a terminal; tensors of one name in many blocks are one line."""
        table = Table(title=Text(f"Weights from {self.source}"), title_justify="left")
        for heading in ("", "tensors", "values", "which"):
            table.add_column(heading, justify="left" if heading in ("", "which") else "right", overflow="fold")
        for kind in ("kept", "resized", "initialised", "unused"):
            entries: list[Entry] = getattr(self, kind)
            values = sum(prod(entry.shape) for entry in entries)
            lines = [] if kind == "kept" else folded(entries)
            shown = [*lines[:SHOWN], *([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
            table.add_row(kind, f"{len(entries):,}", f"{values:,}", Text("\n".join(shown)))
        return table

    def show(self, console: Console | None = None) -> None:
        """Print the table and the notes."""
        console = console or Console()
        console.print(self.table())
        for note in self.notes:
            console.print(f"Note: {note}", markup=False, highlight=False)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (json.dumps(asdict(self), indent=1) + "\n").encode())


def folded(entries: Iterable[Entry]) -> list[str]:
    """A line for each name, whose numbers are a star where several tensors differ in nothing else."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((NUMBERED.sub(".*", entry.name), told(entry)), []).append(entry)
    return [
        f"{name if len(group) > 1 else group[0].name} {text}" + (f", {len(group)} times" if len(group) > 1 else "")
        for (name, text), group in groups.items()
    ]


def told(entry: Entry) -> str:
    """Its shapes, and what was done."""
    text = size(entry.shape)
    if entry.before is not None:
        text = f"{size(entry.before)} -> {text}"
    return f"{text} ({entry.how})" if entry.how else text


def size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
