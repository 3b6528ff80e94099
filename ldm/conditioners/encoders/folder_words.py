"""Words of a tokenizer that transformers reads from a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.conditioners.captions import warn_of_cut
from ldm.errors import UserError


def with_transformers() -> Any:
    """The package transformers, which is an extra."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            "This text encoder is read by transformers, which is not installed: pip install 'ldm[t5]'."
        ) from None
    return transformers


def folder_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a local folder."""
    transformers = with_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(str(Path(folder).expanduser()), local_files_only=True)
    except Exception as error:  # its causes are as many as its formats
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} holds no tokenizer that transformers can read ({reason}): fetch it again.") from None


def folder_ids(tokenizer: Any, captions: Sequence[str], context_length: int) -> tuple[Tensor, Tensor]:
    """Word numbers and mask (B, context_length), True where they are not padding; what is cut is warned of."""
    captions = list(captions)
    for caption, ids in zip(captions, tokenizer(captions, verbose=False)["input_ids"], strict=True):
        if len(ids) > context_length:
            warn_of_cut(caption, tokenizer.decode(ids[context_length - 1 :], skip_special_tokens=True), context_length)
    padded = tokenizer(captions, max_length=context_length, padding="max_length", truncation=True, return_tensors="pt")
    return padded["input_ids"], padded["attention_mask"].bool()
