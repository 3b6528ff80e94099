"""The error of each pixel value."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.losses.base import LossTerm

Error = Literal["l1", "l2", "huber"]
ERRORS: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": F.huber_loss}


class Reconstruction(LossTerm):
    """Mean absolute error, squared error, or Huber's, which is half the squared one up to `delta` and then linear.

    Args:
        error: "l1", "l2" or "huber".
        weight: Its factor in the total.
        delta: Where Huber's error becomes linear.
    """

    in_likelihood = True

    def __init__(self, error: Error = "l1", weight: float = 1.0, delta: float = 0.1) -> None:
        super().__init__("reconstruction", weight)
        if error not in ERRORS:
            raise ValueError(f'The reconstruction error is {error!r}: choose "l1", "l2" or "huber".')
        if delta <= 0:
            raise ValueError(f"Huber's delta is {delta}: it must be positive.")
        self.error = error
        self.options = {"delta": delta} if error == "huber" else {}

    def forward(self, seen: Autoencoded) -> Tensor:
        return ERRORS[self.error](seen.reconstructions, seen.images, **self.options)
