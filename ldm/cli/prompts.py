"""Files of prompts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.errors import UserError

FIELDS = ("prompt", "negative", "seed")
WRITE = 'write {"prompt": "...", "negative": "...", "seed": 7}, of which only the prompt has to be there'


@dataclass(frozen=True)
class Prompt:
    """A text, what to be guided away from, and a seed of its own."""

    text: str
    negative: str | None = None
    seed: int | None = None


def read_prompts(file: str) -> list[Prompt]:
    """The prompts of a file: one a line, or, where its name ends in .jsonl, {"prompt", "negative", "seed"} a line.

    Raises:
        UserError: it holds none, or a line that is no such record; it names the line.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8: save it as UTF-8 text, one prompt a line.") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{file} holds no prompt: write one a line.")
    if Path(file).suffix.lower() not in (".jsonl", ".ndjson"):
        return [Prompt(line) for _, line in lines]
    return [parse_record(line, f"{file}, line {number}") for number, line in lines]


def parse_record(line: str, where: str) -> Prompt:
    """One line of a .jsonl file of prompts."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({error}): {WRITE}.") from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise UserError(f'{where} has no text "prompt": {WRITE}.')
    unknown = sorted(record.keys() - set(FIELDS))
    if unknown:
        raise UserError(f"{where} has {unknown[0]!r}: the fields of a prompt are {', '.join(FIELDS)}.")
    negative, seed = record.get("negative"), record.get("seed")
    if negative is not None and not isinstance(negative, str):
        raise UserError(f'{where}: "negative" is to be text, and is {negative!r}.')
    if seed is not None and not is_seed(seed):
        raise UserError(f'{where}: "seed" is to be a whole number from 0 to 2**63 - 1, and is {seed!r}.')
    try:
        (record["prompt"] + (negative or "")).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} has half of a character (a lone surrogate): write the text as UTF-8.") from None
    return Prompt(record["prompt"], negative, seed)


def is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
