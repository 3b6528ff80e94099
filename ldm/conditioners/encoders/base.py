"""What a frozen text encoder owes."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ldm.atomic import file_sha256
from ldm.errors import UserError
from ldm.nn.precision import without_autocast
from ldm.text import Text

Precision = Literal["float32", "bfloat16", "float16"]


class TextEncoder(ABC):
    """A trained encoder of captions that nothing trains any more, with weights from a local file.

    It is no module: its weights are in no state dict, average, optimizer or checkpoint. They are read when a caption is
    encoded for the first time, and live on the device that was asked for last. Copies share them.

    Attributes:
        name: under which its embeddings are kept; other settings that change them make another name where possible.
        token_width: D of the tokens.
        pooled_width: P of the pooled vector, None where there is none.
        context_length: L.
        file_arguments: which arguments of the constructor name files or folders that it cannot do without, in the
            order of `files`.
    """

    name: str
    token_width: int
    pooled_width: int | None
    context_length: int
    file_arguments: tuple[str, ...] = ()

    _model: Any = None
    _fingerprint: str | None = None

    def files(self) -> list[Path]:
        """The files and folders that it reads: what an export has to carry along."""
        given = (getattr(self, argument) for argument in self.file_arguments)
        return [Path(path).expanduser() for path in given if path is not None]

    def check(self) -> None:
        """Raise a UserError if one of its files is not there, naming the path and the option."""
        for argument in self.file_arguments:
            path = getattr(self, argument)
            if path is not None and not Path(path).expanduser().exists():
                raise UserError(
                    f"The text encoder {type(self).__name__} reads its {argument} from {path}, and there is nothing: "
                    f"nothing is downloaded, so fetch it yourself and give its path as {argument}."
                )

    def is_there(self) -> bool:
        """Whether all its files are, so that it can encode."""
        return all(path.exists() for path in self.files())

    def fingerprint(self) -> str:
        """SHA-256 (hex) of its files and of the settings that change what it gives."""
        if self._fingerprint is None:
            self.check()
            contents = [file_sha256(file) for path in self.files() for file in self.parts(path)]
            described = json.dumps([type(self).__name__, self.settings(), contents], sort_keys=True)
            self._fingerprint = hashlib.sha256(described.encode()).hexdigest()
        return self._fingerprint

    @classmethod
    def parts(cls, path: Path) -> list[Path]:
        """The files, in a fixed order, that are read of one of `files`."""
        return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings that change what it gives, without the places of its files."""

    @abstractmethod
    def load(self) -> Any:
        """The module, on the CPU; a UserError where the files do not give it."""

    @abstractmethod
    def run(self, model: Any, captions: Sequence[str], device: torch.device) -> Text:
        """What the loaded module, on `device`, makes of captions."""

    def encode(self, captions: Sequence[str], device: torch.device) -> Text:
        """float32 whatever the encoder's own precision, on `device`; the same inside and outside of autocast."""
        with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
            if self._model is None:
                self.check()
                self._model = self.load().requires_grad_(False).eval()
            self._model.to(device)
            text = self.run(self._model, captions, device)
            return text.each(lambda x: x.float() if x.is_floating_point() else x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextEncoder":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}


def name_of(*words: str) -> str:
    """A name that may stand in a file's, of lower-case letters, digits and -."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
