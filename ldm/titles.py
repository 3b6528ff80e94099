"""Text beside images: wrapped to lines of a given width, and drawn."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

LINE = 18  # pixels from one line to the next
MOST_LINES = 4


@lru_cache(maxsize=1)
def font() -> Any:
    return ImageFont.load_default(size=14)


def too_wide(text: str, width: int) -> bool:
    """Whether a text needs more than one line of that width."""
    return bool(font().getlength(text) > width)


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text in a column of that width, the first four of them; a word that is too long is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and not too_wide(f"{lines[-1]} {word}", width):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} ..."]
    return [cut(line, width) for line in lines]


def cut(line: str, width: int) -> str:
    """As much of a line as there is room for."""
    kept = line
    while line and too_wide(kept, width):
        line = line[:-1]
        kept = line.rstrip(" .") + "..."
    return kept


def band(lines: Sequence[str]) -> int:
    """Height of some lines in pixels."""
    return LINE * len(lines) + 2 if lines else 0


def width_of(lines: Sequence[str]) -> int:
    """Width of some lines in pixels, with room at the right."""
    return max((round(font().getlength(line)) + 6 for line in lines), default=0)


def write(picture: Image.Image, lines: Sequence[str], x: int, y: int) -> None:
    """Draw lines with their upper left corner at (x, y)."""
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((x, y + 2 + LINE * number), line, fill="black", font=font())
