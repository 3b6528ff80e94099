"""What a kind of transformer block is: how it hears the noise level and the conditioning."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from ldm.networks.base import Conditioning
from ldm.networks.blocks.head import AdaptiveHead, Head
from ldm.networks.blocks.parts import Parts


class Context(NamedTuple):
    """What the blocks of one pass hear besides c. Made once, before the first of them; each field is optional.

    Attributes:
        tokens: (B, L, D), attended to beside the sequence; `mask` (B, 1, 1, L) bool says which count.
        prefix: (B, E, D), tokens that stand in front of the patches through all blocks and are taken off before the
            head; `prefix_mask` (B, E) bool says which count.
        shared: (B, 6, D), shifts, scales and gates of the whole network.
        rotary: (2, N, D / num_heads), the turns of the sequence.
        keys: (B, 1, 1, N) bool, which tokens of the sequence count.
    """

    tokens: Tensor | None = None
    mask: Tensor | None = None
    prefix: Tensor | None = None
    prefix_mask: Tensor | None = None
    shared: Tensor | None = None
    rotary: Tensor | None = None
    keys: Tensor | None = None


NOTHING = Context()


class Hearing(nn.Module, ABC):
    """What is done once a pass, for all blocks."""

    @abstractmethod
    def forward(self, level: Tensor, cond: Conditioning) -> tuple[Tensor, Context]:
        """The embedding of the noise level (B, D) and the conditioning -> c (B, D) and the rest."""


class Block(nn.Module, ABC):
    """(B, N, D) -> (B, N, D)."""

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        """c (B, D): the noise level and the vector."""

    def silence(self) -> None:
        """Set to zero what says nothing before training; called after all linear layers have their Xavier weights."""


class BlockKind(ABC):
    """The settings of a kind of block; makes the layers that a network of it has.

    Attributes:
        context_width: channels of the tokens it attends to, or None if it hears none.
    """

    context_width: int | None = None

    @abstractmethod
    def hearing(self, parts: Parts) -> Hearing:
        """One for the network."""

    @abstractmethod
    def block(self, parts: Parts) -> Block:
        """One for each place of the network's depth."""

    def head(self, parts: Parts, out: int) -> Head:
        """(B, N, D) and c -> (B, N, out); modulated by c unless a kind says otherwise."""
        return AdaptiveHead(parts, out)
