"""The seam of an autoencoder's loss: one named term."""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder


class LossTerm(nn.Module, ABC):
    """One term of an autoencoder's loss.

    Args:
        name: Its key in the loss's result, and so in the logs.
        weight: Its factor in the total.

    Attributes:
        in_likelihood: Whether it measures the reconstruction, so that a learned variance divides it.
        balance: "decoder" or "encoder": its factor is also the ratio of the likelihood's gradient to its own, at the
            last weight of that part (Esser et al. 2021, arXiv 2012.09841, equation 7); "none": it is not.
        most: The largest such ratio.
    """

    in_likelihood = False
    balance: Literal["none", "decoder", "encoder"] = "none"
    most = 1e4

    def __init__(self, name: str, weight: float) -> None:
        super().__init__()
        self.name = name
        self.weight = weight

    def weight_at(self, batch: int) -> float:
        """Its factor in a global batch, counted from 0; where it is 0 the term is not computed."""
        return self.weight

    def measured(self) -> bool:
        """Whether validation computes it too."""
        return True

    def check(self, autoencoder: Autoencoder) -> None:
        """Raise a ValueError that says what to change if the term does not suit an autoencoder."""
        if self.balance != "none":
            _ = autoencoder.last_weight if self.balance == "decoder" else autoencoder.last_encoder_weight

    def check_files(self) -> None:
        """Raise a UserError that names a file of weights which is not there."""

    @abstractmethod
    def forward(self, seen: Autoencoded) -> Tensor:
        """The term without its weight, 0-dim, per pixel value; images are float32 (B, C, H, W) in [-1, 1]."""
