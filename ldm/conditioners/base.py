"""What turns a batch into the conditioning of a network."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.networks.base import Conditioning
from ldm.seeding import Draws


class Embedder(nn.Module, ABC):
    """One thing that a model may be asked for: reads named entries of a batch and gives a part of the `Conditioning`.

    Rows that are dropped get the embedder's null. Dropping rows at random in training is what makes classifier-free
    guidance possible (Ho & Salimans 2022, arXiv:2207.12598).

    Attributes:
        keys: entries of a batch that it reads.
        dropout: probability with which training drops a row, apart from all other embedders.
        defaults: for sampling, the value for one image of each entry that a user need not name.
        stand_ins: for entries that are made of others in training, the entry that is taken where they are missing.
        file_arguments: which arguments of the constructor name files that it cannot do without; an export carries them.
    """

    keys: tuple[str, ...]
    dropout: float = 0.0
    defaults: Mapping[str, Any] = {}
    stand_ins: Mapping[str, str] = {}
    file_arguments: tuple[str, ...] = ()

    def entry(self, batch: Mapping[str, Any], key: str) -> Any:
        """An entry of the batch, or what stands in for it; None where there is neither."""
        values = batch.get(key)
        return values if values is not None else batch.get(self.stand_ins.get(key, key))

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        """`drop` (B,) bool, on the device of the result; where all are dropped the batch may lack the keys.

        `draws` are this batch's random numbers in training, None where nothing is to be random.
        """

    def check_data(self, data: Any) -> None:
        """Raise a ValueError that says what to change if the data module's samples do not give what it reads."""
        for key in self.keys if data.provides is not None else ():
            if not {key, self.stand_ins.get(key, key)} & data.provides:
                raise ValueError(
                    f"The embedder {type(self).__name__} reads {key!r}, and {data.shards} gives "
                    f"{', '.join(sorted(data.provides))}: pack the set with it, or take the embedder out of the "
                    "conditioner."
                )

    def read(self, key: str, text: str) -> Any:
        """What a user has written on the command line for an entry, as the value for one image.

        Raises:
            UserError: it cannot be one.
        """
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"{key}={text} is neither a number, nor a list of them, nor a word.") from None

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        """Raise a UserError if it cannot give what a user asks for: values, one an image, of some of its entries."""

    def name_classes(self, names: Sequence[str] | None) -> None:
        """Learn what the data set called its classes, so that a user may ask by name."""

    def fingerprint(self) -> str | None:
        """Hash (hex) of the frozen weights that it stands on, None where it has none."""
        return None


def check_dropout(dropout: float) -> float:
    """`dropout`, if it is a probability that training can drop rows with."""
    if not 0 <= dropout < 1:
        raise ValueError(f"A dropout of {dropout} is outside [0, 1): 0.1 is usual.")
    return dropout


class Conditioner(nn.Module):
    """An ordered set of embedders; without any the model is unconditional.

    Their vectors are summed, their tokens joined into one sequence, their images joined along the channels.

    Args:
        embedders: what the model may be asked for.
        dropout: probability with which training drops all conditions of a row together, besides each embedder's own.
    """

    def __init__(self, embedders: list[Embedder] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedders = nn.ModuleList(embedders or [])
        self.dropout = check_dropout(dropout)

    def __iter__(self) -> Iterator[Embedder]:
        return iter(self.embedders)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.embedders)

    @property
    def keys(self) -> tuple[str, ...]:
        """Entries of a batch that any embedder reads, and those that a user may name besides."""
        return tuple(dict.fromkeys(key for embedder in self for key in (*embedder.keys, *embedder.defaults)))

    def reader(self, key: str) -> Embedder | None:
        """The first embedder that reads an entry."""
        return next((embedder for embedder in self if key in (*embedder.keys, *embedder.defaults)), None)

    def wish(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What a user would name to ask for what the samples of a batch are."""
        found = {key: embedder.entry(batch, key) for embedder in self for key in (*embedder.keys, *embedder.defaults)}
        return {key: values for key, values in found.items() if values is not None}

    def droppable(self) -> list[bool]:
        """Of each embedder, whether training ever drops it, so that the model knows its null."""
        return [self.dropout > 0 or embedder.dropout > 0 for embedder in self]

    def drops(self, draws: Draws) -> Tensor:
        """What training drops: (B, E) bool, drawn for each of the E embedders."""
        together = draws.uniform() < self.dropout
        columns = [(draws.uniform() < embedder.dropout) | together for embedder in self]
        return torch.stack(columns, dim=1) if columns else together[:, None][:, :0]

    def check_data(self, data: Any) -> None:
        """Raise a ValueError that says what to change if the data module's samples do not suit an embedder."""
        for embedder in self:
            embedder.check_data(data)

    def name_classes(self, names: Sequence[str] | None) -> None:
        """Learn what the data set called its classes, so that a user may ask by name."""
        for embedder in self:
            embedder.name_classes(names)

    def fingerprints(self) -> list[str | None]:
        """Of each embedder, the hash of the frozen weights that it stands on."""
        return [embedder.fingerprint() for embedder in self]

    def check_fingerprints(self, trained_with: Sequence[str | None]) -> None:
        """Raise a UserError if an embedder stands on other frozen weights than those that a model was trained with."""
        for embedder, trained, given in zip(self, trained_with, self.fingerprints(), strict=False):
            if trained != given:
                raise UserError(
                    f"The checkpoint was trained with the weights {str(trained)[:12]} in the embedder "
                    f"{type(embedder).__name__} and is given {str(given)[:12]}: point it at the file of the training."
                )

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        """The conditioning of a batch.

        Args:
            batch: what the embedders read, one row a sample.
            drop: (B,) bool, or (B, E) for each embedder, on the device of the result: rows that get the null.
            draws: this batch's random numbers in training; None: nothing is random.

        Raises:
            UserError: the batch lacks what an embedder reads; it names embedder, entry, sample and shard.
        """
        parts = []
        for place, embedder in enumerate(self):
            own = drop if drop.dim() == 1 else drop[:, place]
            check_batch(embedder, batch, own)
            parts.append(embedder(batch, own, draws))
        return merge(parts)


def check_batch(embedder: Embedder, batch: Mapping[str, Any], drop: Tensor) -> None:
    """Raise a UserError if a batch lacks what an embedder reads, unless every row is dropped anyway."""
    for key in embedder.keys:
        values = embedder.entry(batch, key)
        lacking = 0 if values is None else first_none(values)
        if lacking is None or bool(drop.all()):
            continue
        where = ""
        if "keys" in batch:
            shards = batch.get("shards")
            where = f" of sample {batch['keys'][lacking]!r}" + (f" in shard {shards[lacking]}" if shards else "")
        raise UserError(
            f"The embedder {type(embedder).__name__} reads {key!r}{where}, and there is none: pack the set again with "
            "it, or take the embedder out of the conditioner."
        )


def first_none(values: Any) -> int | None:
    """The place of the first sample that has no value."""
    return values.index(None) if isinstance(values, list) and None in values else None


def merge(parts: Sequence[Conditioning]) -> Conditioning:
    """One conditioning of those of several embedders."""
    if len(parts) == 1:
        return parts[0]
    vectors = [part.vector for part in parts if part.vector is not None]
    concats = [part.concat for part in parts if part.concat is not None]
    return Conditioning(
        vector=torch.stack(vectors).sum(0) if vectors else None,
        tokens=joined([part.tokens for part in parts]),
        mask=joined([mask_of(part) for part in parts]) if any(part.mask is not None for part in parts) else None,
        concat=torch.cat(concats, dim=1) if concats else None,
    )


def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Sequences (B, L, ...) one after the other."""
    there = [part for part in parts if part is not None]
    return torch.cat(there, dim=1) if there else None


def mask_of(part: Conditioning) -> Tensor | None:
    """The mask of a part's tokens; where it has none, all of them count."""
    if part.tokens is None or part.mask is not None:
        return part.mask
    return torch.ones(part.tokens.shape[:2], dtype=torch.bool, device=part.tokens.device)
