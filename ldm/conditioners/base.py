"""What turns a batch into the conditioning of a network."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ldm.networks.base import Conditioning


class Conditioner(nn.Module, ABC):
    """Maps a batch to a `Conditioning`; rows that are dropped get the null condition.

    Dropping rows at random in training is what makes classifier-free guidance possible (Ho & Salimans 2022,
    arXiv:2207.12598); the unconditional model is the same call with every row dropped.

    Attributes:
        dropout: probability with which training drops a row.
        num_classes: number of classes that may be asked for, None where there are none.
    """

    dropout: float = 0.0
    num_classes: int | None = None

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], drop: Tensor) -> Conditioning:
        """`drop` (B,) bool, on the device of the result."""
