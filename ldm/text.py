"""What a text encoder makes of captions."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Text:
    """What an encoder makes of captions.

    Attributes:
        tokens: (B, L, D).
        mask: (B, L) bool, True where a token counts.
        pooled: (B, P), one vector a caption, None where the encoder gives none.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor | None = None

    def parts(self) -> dict[str, Tensor]:
        """Those that there are, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def each(self, change: Callable[[Tensor], Tensor]) -> "Text":
        """The same change made to every tensor."""
        return Text(**{name: change(value) for name, value in self.parts().items()})
