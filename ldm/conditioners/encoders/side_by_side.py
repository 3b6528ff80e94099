"""Several encoders of the same caption, joined along the width."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ldm.conditioners.encoders.base import TextEncoder
from ldm.text import Text


class SideBySide(TextEncoder):
    """Token l is what each encoder gives at place l, one beside the other, as in SDXL (Podell et al. 2023,
    arXiv:2307.01952, section 2.1).

    Args:
        encoders: two or more, of the same context_length.
        pooled: the pooled vector is the last one's (SDXL), or those of all that give one, joined (Stable Diffusion 3).
    """

    def __init__(self, encoders: list[TextEncoder], pooled: Literal["last", "joined"] = "last") -> None:
        if len(encoders) < 2:
            raise ValueError(f"{len(encoders)} encoder(s) cannot stand side by side: give two or more under encoders.")
        lengths = [encoder.context_length for encoder in encoders]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"Encoders side by side need one context_length, and these have {lengths}: give them one, or each an "
                "embedder of its own, which puts their tokens one after the other."
            )
        self.encoders, self.pooled = encoders, pooled
        self.context_length = lengths[0]
        self.name = "+".join(encoder.name for encoder in encoders)
        widths = [encoder.pooled_width or 0 for encoder in self.poolers()]
        self.pooled_width = sum(widths) or None

    @property
    def token_width(self) -> int:  # type: ignore[override]
        return sum(encoder.token_width for encoder in self.encoders)

    def poolers(self) -> list[TextEncoder]:
        """Those whose pooled vectors are given."""
        asked = self.encoders[-1:] if self.pooled == "last" else self.encoders
        return [encoder for encoder in asked if encoder.pooled_width is not None]

    def files(self) -> list[Path]:
        return [path for encoder in self.encoders for path in encoder.files()]

    def check(self) -> None:
        for encoder in self.encoders:
            encoder.check()

    def is_there(self) -> bool:
        return all(encoder.is_there() for encoder in self.encoders)

    def settings(self) -> dict[str, Any]:
        return {"pooled": self.pooled}

    def fingerprint(self) -> str:
        each = [encoder.fingerprint() for encoder in self.encoders]
        return hashlib.sha256("\n".join([self.pooled, *each]).encode()).hexdigest()

    def load(self) -> torch.nn.Module:
        return torch.nn.Identity()  # each of them loads its own

    def run(self, model: Any, captions: Sequence[str], device: torch.device) -> Text:
        texts = {encoder: encoder.encode(captions, device) for encoder in self.encoders}
        vectors = [vector for encoder in self.poolers() if (vector := texts[encoder].pooled) is not None]
        return Text(
            tokens=torch.cat([text.tokens for text in texts.values()], dim=-1),
            mask=torch.stack([text.mask for text in texts.values()]).any(0),
            pooled=torch.cat(vectors, dim=-1) if vectors else None,
        )
