"""From tokens back to patches."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.blocks.parts import Parts
from ldm.nn.modulate import modulate


class Head(nn.Module, ABC):
    """(B, N, D) -> (B, N, out) by a linear layer, which starts at zero."""

    linear: nn.Linear

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """c (B, D): the noise level and the vector."""

    def silence(self) -> None:
        """Set to zero what says nothing before training."""
        nn.init.zeros_(self.linear.weight)


class AdaptiveHead(Head):
    """After a norm that c shifts and scales."""

    def __init__(self, parts: Parts, out: int) -> None:
        super().__init__()
        self.norm = parts.norm()
        self.modulation = nn.Linear(parts.width, 2 * parts.width)
        self.linear = nn.Linear(parts.width, out)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(silu(c)).chunk(2, dim=1)
        return self.linear(modulate(self.norm(x), shift, scale))

    def silence(self) -> None:
        super().silence()
        nn.init.zeros_(self.modulation.weight)


class PlainHead(Head):
    """After a norm of its own; for blocks that hear the conditioning as tokens."""

    def __init__(self, parts: Parts, out: int) -> None:
        super().__init__()
        self.norm = parts.norm(affine=True)
        self.linear = nn.Linear(parts.width, out)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(self.norm(x))
