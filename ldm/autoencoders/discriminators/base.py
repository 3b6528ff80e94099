"""The seam of a discriminator."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """Says of images or of parts of them how real they look.

    Args:
        in_channels: Channels of the images.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    def check_size(self, height: int, width: int) -> None:
        """Raise a ValueError that says what to change if images of this size are too small."""

    def check_files(self) -> None:
        """Raise a UserError that names a file of weights which is not there."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] -> logits (B, ...), higher for real ones."""
