"""From captions to the numbers of open_clip's words, with a warning about what does not fit."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ldm.errors import UserError

VOCABULARY = 49_408  # of open_clip's byte-pair tokenizer, whose merges come inside the package
MOST_WARNED = 10  # a data set of long captions must not fill the screen
LONGEST = 300  # characters of a caption that a warning quotes

warned: set[str] = set()
most_warned: float = MOST_WARNED


@lru_cache(maxsize=1)
def clip_tokenizer() -> Any:
    """open_clip's byte-pair tokenizer; the package is imported only once somebody reads a caption."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=100_000)
def words_of(caption: str) -> tuple[int, ...]:
    """The numbers of a caption's words and parts of words, without start and end."""
    return tuple(clip_tokenizer().encode(caption))


def clip_ids(captions: Sequence[str], context_length: int) -> tuple[Tensor, Tensor]:
    """Start, words, end of each caption, padded with 0.

    Returns:
        ids (B, context_length) int64, and a mask (B, context_length) bool, True where they are not padding.
    """
    tokenizer, room = clip_tokenizer(), context_length - 2
    ids = torch.zeros(len(captions), context_length, dtype=torch.long)
    mask = torch.zeros(len(captions), context_length, dtype=torch.bool)
    for row, caption in enumerate(captions):
        words = words_of(caption)
        if len(words) > room:
            warn_of_cut(caption, tokenizer.decode(words[room:]).strip(), context_length)
        line = (tokenizer.sot_token_id, *words[:room], tokenizer.eot_token_id)
        ids[row, : len(line)] = torch.tensor(line)
        mask[row, : len(line)] = True
    return ids, mask


@contextmanager
def all_cuts_told() -> Iterator[None]:
    """For captions that a person wrote one by one: each that is cut is told of, however many there are."""
    global most_warned
    usual, most_warned = most_warned, math.inf
    try:
        yield
    finally:
        most_warned = usual


def warn_of_cut(caption: str, lost: str, context_length: int) -> None:
    """Say what of a caption is not heard, once for each caption and of the first few."""
    if caption in warned or len(warned) > most_warned:
        return
    warned.add(caption)
    if len(warned) > most_warned:
        warnings.warn("More captions are longer than their context; they are cut without a word.", stacklevel=2)
        return
    warnings.warn(
        f"The caption {shortened(caption, 60)!r} is longer than the context of {context_length} tokens, start and end "
        f"among them. Lost is: {shortened(lost, LONGEST)!r}.",
        stacklevel=2,
    )


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def captions_of(batch: Mapping[str, Any], count: int) -> list[str]:
    """The captions of a batch, empty where it has none (those rows are dropped)."""
    return [caption or "" for caption in batch.get("captions") or [None] * count]


def check_captions(wish: Mapping[str, Sequence[Any]]) -> None:
    """Raise a UserError where what a user asks for as a caption is no text."""
    for caption in wish.get("captions", ()):
        if not isinstance(caption, str):
            raise UserError(f"A prompt is a text, and {caption!r} is none: put it in quotation marks.")
