"""Captions by a frozen text encoder, or by its embeddings kept with the data."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.captions import captions_of, check_captions
from ldm.conditioners.encoders import Text, TextEncoder
from ldm.networks.base import Conditioning


class CachedText(Protocol):
    """What a data module's `text_cache(name)` says of the embeddings that it keeps under an encoder's name.

    Attributes:
        fingerprint: of the encoder that made them.
        empty: of the empty caption, one row.
    """

    fingerprint: str
    empty: Text


class FrozenText(Embedder):
    """Captions by a frozen, trained encoder.

    A batch may hold what the encoder makes of its captions, under `text.NAME.tokens` (B, L, D) in float16 or float32,
    `text.NAME.mask` (B, L) bool and, where there is one, `text.NAME.pooled` (B, P), with the encoder's NAME: these are
    then taken as they are, and the encoder does not run.

    Args:
        encoder: the encoder; its weights come from a local file and go into no checkpoint.
        dropped: what a dropped row hears: empty, what the encoder makes of the empty caption, or learned, one learned
            token in its place (and one learned vector).
        width: project the tokens to this width with a trained layer; left out, they keep the encoder's own. It is the
            network's `context_width`.
        vector_width: also give the pooled vector, projected with a trained layer that starts at 0, this wide: the
            network's own `width` (of a U-Net 4 x its `channels`). Left out, none.
        dropout: probability with which training replaces a caption by the null.
    """

    keys = ("captions",)

    def __init__(
        self,
        encoder: TextEncoder,
        dropped: Literal["empty", "learned"] = "empty",
        width: int | None = None,
        vector_width: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if vector_width is not None and encoder.pooled_width is None:
            raise ValueError(f"The encoder {encoder.name} gives no pooled vector: leave out vector_width.")
        self.encoder, self.dropped, self.width, self.vector_width = encoder, dropped, width, vector_width
        self.dropout = check_dropout(dropout)
        self.cached_by: str | None = None  # fingerprint of the encoder that made the embeddings of the training data
        self.empty: Text | None = None  # what the encoder makes of ""; no buffer, as it is not the model's
        self.to_tokens = nn.Linear(encoder.token_width, width) if width is not None else nn.Identity()
        self.to_vector = None
        if vector_width is not None and encoder.pooled_width is not None:
            self.to_vector = nn.Linear(encoder.pooled_width, vector_width)
            nn.init.zeros_(self.to_vector.weight)
            nn.init.zeros_(self.to_vector.bias)
        if dropped == "learned":
            self.null_token = nn.Parameter(0.02 * torch.randn(width or encoder.token_width))
            self.null_vector = nn.Parameter(torch.zeros(1, vector_width)) if vector_width is not None else None

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        null, text = self.nothing(drop.device), self.text(batch, drop)
        if text is None:
            return repeated(null, len(drop))
        heard = self.project(text)
        return Conditioning(
            vector=pick(drop, null.vector, heard.vector),
            tokens=pick(drop, null.tokens, heard.tokens),
            mask=pick(drop, null.mask, heard.mask),
        )

    def text(self, batch: Mapping[str, Any], drop: Tensor) -> Text | None:
        """What the encoder makes, or has made, of a batch's captions; None where it has none, as all are dropped."""
        prefix = f"text.{self.encoder.name}."
        if f"{prefix}tokens" in batch:
            kept = Text(batch[f"{prefix}tokens"], batch[f"{prefix}mask"], batch.get(f"{prefix}pooled"))
            return kept.each(lambda x: x.to(drop.device)).each(as_float)
        if batch.get("captions") is None:
            return None
        captions = captions_of(batch, len(drop))
        distinct = list(dict.fromkeys(captions))  # images of one prompt ask once
        text = self.encoder.encode(distinct, drop.device)
        if len(distinct) == len(captions):
            return text
        rows = torch.tensor([distinct.index(caption) for caption in captions], device=drop.device)
        return text.each(lambda x: x[rows])

    def nothing(self, device: torch.device) -> Conditioning:
        """What a dropped row hears, one row."""
        if self.dropped == "learned":
            tokens = self.null_token.expand(1, self.encoder.context_length, -1)
            mask = torch.arange(self.encoder.context_length, device=device)[None] == 0
            return Conditioning(tokens=tokens, mask=mask, vector=self.null_vector)
        with torch.inference_mode(False), torch.no_grad():  # validation may come first, and training has to use it
            empty = self.encoder.encode([""], device) if self.empty is None else self.empty
            self.empty = empty.each(lambda x: x.to(device))
        return self.project(self.empty)

    def project(self, text: Text) -> Conditioning:
        """What the network hears of a text."""
        vector = self.to_vector(text.pooled) if self.to_vector is not None and text.pooled is not None else None
        return Conditioning(vector=vector, tokens=self.to_tokens(text.tokens), mask=text.mask)

    def check_data(self, data: Any) -> None:
        """Also take up the embeddings that the data keep, and refuse those of another encoder."""
        find = getattr(data, "text_cache", None)
        cache: CachedText | None = find(self.encoder.name) if find is not None else None
        self.cached_by, self.empty = None, None
        if cache is None:
            super().check_data(data)
            return self.encoder.check()
        if self.encoder.is_there() and cache.fingerprint != self.encoder.fingerprint():
            raise ValueError(
                f"{data.shards} keeps embeddings under {self.encoder.name} of the text encoder "
                f"{cache.fingerprint[:12]}, and the config's is {self.encoder.fingerprint()[:12]}: encode the "
                "captions again, or give the encoder's file and settings that they were made with."
            )
        if self.to_vector is not None and cache.empty.pooled is None:
            raise ValueError(f"The embeddings in {data.shards} have no pooled vector: leave out vector_width.")
        self.cached_by, self.empty = cache.fingerprint, cache.empty.each(as_float)

    def fingerprint(self) -> str:
        """The encoder's; of the kept embeddings where its files are not there."""
        return self.cached_by if self.cached_by and not self.encoder.is_there() else self.encoder.fingerprint()

    def read(self, key: str, text: str) -> str:
        return text

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        check_captions(wish)
        self.encoder.check()


def as_float(values: Tensor) -> Tensor:
    """float32, but for masks."""
    return values.float() if values.is_floating_point() else values


def pick(drop: Tensor, null: Tensor | None, heard: Tensor | None) -> Tensor | None:
    """Rows (B, ...) of what is heard, and the null's one row where they are dropped."""
    if null is None or heard is None:
        return None
    return torch.where(drop.reshape(-1, *[1] * (heard.dim() - 1)), null, heard)


def repeated(null: Conditioning, count: int) -> Conditioning:
    """The null's one row, `count` times."""
    values = (getattr(null, f.name) for f in fields(null))
    return Conditioning(*(None if value is None else value.expand(count, *value.shape[1:]) for value in values))
