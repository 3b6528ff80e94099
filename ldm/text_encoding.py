"""Frozen text encoders at work on the captions of a set, whose embeddings are then kept with the samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ldm import runs
from ldm.conditioners import FrozenText
from ldm.conditioners.encoders import TextEncoder
from ldm.data.manifest import Manifest, TextContract
from ldm.data.text_cache import caption_list, save_empty, to_members
from ldm.errors import UserError
from ldm.text import Text


class CaptionEncoding:
    """What `ldm encode --text` adds to each sample.

    Args:
        encoders: the text encoders, by the names under which their embeddings are kept; none: nothing is added.
        dtype: how their embeddings are stored, float16 or float32.
        device: where they run.
        batch_size: captions that are encoded at once.
    """

    def __init__(
        self, encoders: Sequence[TextEncoder], dtype: str, device: torch.device | None = None, batch_size: int = 64
    ) -> None:
        self.encoders, self.device, self.batch_size = encoders, device or torch.device("cpu"), batch_size
        self.contracts = [text_contract(encoder, dtype) for encoder in encoders]

    def empties(self) -> list[Text]:
        """What each encoder makes of the empty caption, one row, on the CPU."""
        return [encoder.encode([""], self.device).each(torch.Tensor.cpu) for encoder in self.encoders]

    def save_empties(self, folder: Path, empties: Sequence[Text]) -> None:
        for contract, empty in zip(self.contracts, empties, strict=True):
            save_empty(folder, contract, empty)

    def members(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, bytes]]:
        """Of each sample (as `ShardDataset.stored` gives it) the members with the embeddings of all of its captions."""
        found: list[dict[str, bytes]] = [{} for _ in samples]
        if not self.encoders:
            return found
        captions = [caption_list(sample["members"], where(sample)) for sample in samples]
        distinct = list(dict.fromkeys(caption for texts in captions for caption in texts))
        for encoder, contract in zip(self.encoders, self.contracts, strict=True):
            made = self.encode(encoder, distinct)
            for sample, texts, members in zip(samples, captions, found, strict=True):
                members |= to_members(contract, [made[caption] for caption in texts], where(sample))
        return found

    def encode(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Text]:
        """What an encoder makes of each caption, one row each, on the CPU."""
        made: dict[str, Text] = {}
        for start in range(0, len(captions), self.batch_size):
            some = captions[start : start + self.batch_size]
            text = encoder.encode(some, self.device).each(torch.Tensor.cpu)
            made |= {caption: row_of(text, row) for row, caption in enumerate(some)}
        return made


def row_of(text: Text, row: int) -> Text:
    return text.each(lambda values: values[row : row + 1])


def where(sample: dict[str, Any]) -> str:
    return f"sample {sample['key']!r}"


def text_contract(encoder: TextEncoder, dtype: str) -> TextContract:
    return TextContract(
        name=encoder.name,
        fingerprint=encoder.fingerprint(),
        token_width=encoder.token_width,
        context_length=encoder.context_length,
        pooled_width=encoder.pooled_width,
        dtype=dtype,
    )


def encoders_of(config: str, trust_code: bool = False) -> list[TextEncoder]:
    """The frozen text encoders of a training config or a run folder.

    Raises:
        UserError: there are none, their files are missing, or two different ones have the same name.
    """
    found: dict[str, TextEncoder] = {}
    for embedder in runs.load_conditioner(config, trust_code):
        if not isinstance(embedder, FrozenText):
            continue
        encoder = embedder.encoder
        encoder.check()
        other = found.setdefault(encoder.name, encoder)
        if other.fingerprint() != encoder.fingerprint():
            raise UserError(
                f"{config} has two text encoders of the name {encoder.name}, with other files or settings, and a set "
                "keeps one of a name: give them the same, or leave out --text."
            )
    if not found:
        raise UserError(f"{config} has no FrozenText in its conditioner: leave out --text.")
    return list(found.values())


def check_captions(source: Manifest, shards: str) -> None:
    """Raise a UserError unless every sample of a set has a caption."""
    if not source.has_captions and "captions" not in source.fields:
        raise UserError(f"{shards} has no captions that --text could encode: pack the set with a .txt for every image.")
