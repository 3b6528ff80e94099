"""The two seams of a U-Net: what its blocks are, and what its attention is. Each is settings; it makes the layers."""

from abc import ABC, abstractmethod
from typing import Literal

from torch import nn


class UNetBlock(ABC):
    """A kind of block that takes a map (B, C, H, W) and the embedding of the noise level."""

    @abstractmethod
    def block(self, in_channels: int, out_channels: int, embedding_width: int, groups: int | None) -> nn.Module:
        """A layer (x, embedding) -> (B, out_channels, H, W). `groups` as of `group_norm`."""

    def resampler(
        self, channels: int, embedding_width: int, groups: int | None, way: Literal["down", "up"]
    ) -> nn.Module:
        """A layer (x, embedding) -> half or twice the height and width.

        Raises:
            ValueError: this kind has none.
        """
        raise ValueError(f'{type(self).__name__} blocks do not resample: choose resample "conv", or Residual blocks.')


class UNetAttention(ABC):
    """A kind of attention over a map (B, C, H, W).

    Attributes:
        hears_tokens: it attends to the tokens of the conditioning, where there are some.
    """

    hears_tokens: bool = False

    @abstractmethod
    def check(self, num_levels: int) -> None:
        """Raise a ValueError where the settings do not fit a U-Net of so many levels."""

    @abstractmethod
    def attention(
        self, channels: int, level: int, lowest: bool, context_width: int | None, groups: int | None
    ) -> nn.Module:
        """A layer (x, tokens or None, mask or None) -> (B, channels, H, W).

        `level` counts from 0, the finest; `lowest` is true at the coarsest, and in the middle of the U-Net.
        """
