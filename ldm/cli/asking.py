"""What `sample` is asked to draw, from the words of the command line to what embedders read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldm.cli.prompts import Prompt, read_prompts
from ldm.conditioners import Conditioner, Label
from ldm.errors import UserError
from ldm.sampling import reader

ENTRIES = {"labels": "class", "captions": "prompt"}  # what the files call them


@dataclass(frozen=True)
class Asked:
    """What the command line says of the conditions of all images; each list is dealt to them in turn.

    Attributes:
        classes: numbers or names of classes.
        prompt: texts.
        prompts: a file of prompts, see `read_prompts`.
        condition: KEY=VALUE of further entries.
        negative_classes: classes to be guided away from.
        negative_prompt: texts to be guided away from, where a line of the file has none of its own.
    """

    classes: Sequence[str] | None = None
    prompt: Sequence[str] | None = None
    prompts: str | None = None
    condition: Sequence[str] | None = None
    negative_classes: Sequence[str] | None = None
    negative_prompt: Sequence[str] | None = None

    def read(self, conditioner: Conditioner) -> "Said":
        """What it means to a model.

        Raises:
            UserError: a file that holds no prompts, or what the model cannot be asked for.
        """
        if self.prompt and self.prompts is not None:
            raise UserError("--prompt and --prompts were both given: the prompts come from one of them.")
        records = [] if self.prompts is None else read_prompts(self.prompts)
        wanted, avoided = present(self.wanted(records)), present(self.unwanted(records))
        wish, away = (
            {key: read_values(conditioner, key, texts) for key, texts in words.items()} for words in (wanted, avoided)
        )
        entries = described(conditioner, wanted, wish)
        entries |= {f"negative {name}": rows for name, rows in described(conditioner, avoided, away).items()}
        return Said(wish, away, entries, [record.seed for record in records])

    def wanted(self, records: Sequence[Prompt]) -> dict[str, list[str]]:
        """The words for each entry."""
        found = {"labels": list(self.classes or ()), "captions": list(self.prompt or ())}
        found["captions"] += [record.text for record in records]
        for setting in self.condition or ():
            key, equals, value = setting.partition("=")
            if not equals or not value:
                raise UserError(f"--condition takes KEY=VALUE, and {setting!r} is not that.")
            found.setdefault(key, []).append(value)
        return found

    def unwanted(self, records: Sequence[Prompt]) -> dict[str, list[str | None]]:
        """The words for what is avoided; lines of a file have their own or, where they lack it, the command line's."""
        texts: list[str | None] = list(self.negative_prompt or ())
        if records:
            usual = texts or [None]
            own = (record.negative for record in records)
            texts = [usual[i % len(usual)] if text is None else text for i, text in enumerate(own)]
        return {"labels": list(self.negative_classes or ()), "captions": texts}


@dataclass(frozen=True)
class Said:
    """What a command line means to a model; the lists are dealt to the images in turn.

    Attributes:
        wish: values by entry of the batch.
        avoided: values of what to be guided away from; None where there is nothing.
        entries: the same in words, by the name of a PNG's text entry.
        seeds: of the lines of a file of prompts; None where a line has none. Empty without a file.
    """

    wish: Mapping[str, Sequence[Any]]
    avoided: Mapping[str, Sequence[Any]]
    entries: Mapping[str, Sequence[Any]]
    seeds: Sequence[int | None]

    @property
    def lengths(self) -> list[int]:
        """How many values each list has."""
        return [len(values) for values in (*self.wish.values(), *self.avoided.values())]


def present(words: Mapping[str, Sequence[str | None]]) -> dict[str, Sequence[str | None]]:
    """Of each entry the words, where there are any."""
    return {key: texts for key, texts in words.items() if any(text is not None for text in texts)}


def read_values(conditioner: Conditioner, key: str, texts: Sequence[str | None]) -> list[Any]:
    """The values that a user's words stand for, as the embedder reads them that they are for."""
    numbers = all(text is not None and text.isdecimal() for text in texts)
    if key == "labels" and conditioner.reader(key) is None and numbers:
        return [int(text or 0) for text in texts]  # refused later, unless a classifier guides the model
    embedder = reader(conditioner, key)
    return [None if text is None else embedder.read(key, text) for text in texts]


def described(
    conditioner: Conditioner, words: Mapping[str, Sequence[str | None]], wish: Mapping[str, Sequence[Any]]
) -> dict[str, Sequence[Any]]:
    """The text entries that tell of a wish: a class by number and by name, all else in the user's words."""
    found = {ENTRIES.get(key, key): wish[key] if key == "labels" else texts for key, texts in words.items()}
    label = conditioner.reader("labels")
    names = label.names if isinstance(label, Label) else None
    if names and "labels" in wish:
        found["class name"] = [names[i] if 0 <= i < len(names) else None for i in wish["labels"]]
    return found
