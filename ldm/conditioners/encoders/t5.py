"""Captions by the encoder of a T5."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ldm.conditioners.encoders.base import Precision, TextEncoder, name_of
from ldm.conditioners.encoders.folder_words import folder_ids, folder_tokenizer, with_transformers
from ldm.errors import UserError
from ldm.text import Text

WEIGHTS = (".safetensors", ".bin")
READ = (".json", ".model", ".txt", *WEIGHTS)


class T5Text(TextEncoder):
    """The encoder of a T5 (Raffel et al. 2019, arXiv:1910.10683) by transformers; it gives no pooled vector.

    Needs `pip install 'ldm[t5]'`. Imagen, PixArt-alpha, Stable Diffusion 3 and others hear t5-v1_1-xxl.

    Args:
        folder: local folder with config.json, model.safetensors (or its shards) and the tokenizer's files.
        context_length: tokens of a caption, its end among them; 120 in PixArt-alpha, 256 in Stable Diffusion 3.
        precision: of the weights and inside the encoder; of float16 the large ones overflow.
        tokenizer: folder of the tokenizer, where it is another.
        name: under which its embeddings are kept.
    """

    file_arguments = ("folder", "tokenizer")
    pooled_width = None

    def __init__(
        self,
        folder: str,
        context_length: int = 120,
        precision: Precision = "float32",
        tokenizer: str | None = None,
        name: str = "t5",
    ) -> None:
        if context_length < 2:
            raise ValueError(f"A context_length of {context_length} holds no word before the end: 120 is usual.")
        self.folder, self.context_length, self.precision, self.tokenizer = folder, context_length, precision, tokenizer
        self.name = name_of(name)

    @cached_property
    def token_width(self) -> int:  # type: ignore[override]
        """D, as the folder's config.json says."""
        self.check()
        config = Path(self.folder).expanduser() / "config.json"
        try:
            return int(json.loads(config.read_text())["d_model"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{config} does not describe a T5, with its d_model: give the folder of one.") from None

    def settings(self) -> dict[str, Any]:
        return {"context_length": self.context_length, "precision": self.precision}

    def is_there(self) -> bool:
        """A folder with config.json alone tells the width, which training from kept embeddings has to know."""
        folder = Path(self.folder).expanduser()
        return super().is_there() and any(file.suffix in WEIGHTS for file in self.parts(folder))

    @classmethod
    def parts(cls, path: Path) -> list[Path]:
        files = [file for file in super().parts(path) if file.suffix in READ]
        safe = any(file.suffix == ".safetensors" for file in files)
        return [file for file in files if not (safe and file.name.startswith("pytorch_model"))]

    def load(self) -> torch.nn.Module:
        transformers = with_transformers()
        _ = self.token_width
        try:
            model, report = transformers.T5EncoderModel.from_pretrained(
                str(Path(self.folder).expanduser()),
                local_files_only=True,
                dtype=getattr(torch, self.precision),
                output_loading_info=True,
            )
        except Exception as error:  # its causes are as many as its formats
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self.folder} holds no T5 that transformers can read ({reason}).") from None
        if report["missing_keys"]:
            raise UserError(
                f"The weights in {self.folder} are not of the T5 that its config.json describes: they lack "
                f"{', '.join(sorted(report['missing_keys'])[:3])}."
            )
        return model

    def run(self, model: Any, captions: Sequence[str], device: torch.device) -> Text:
        ids, mask = (x.to(device) for x in folder_ids(self.words, captions, self.context_length))
        return Text(model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)

    @cached_property
    def words(self) -> Any:
        return folder_tokenizer(self.tokenizer or self.folder)
