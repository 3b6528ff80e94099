"""The seam of a measure: some numbers of an autoencoder over the whole validation set."""

from abc import ABC, abstractmethod

from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded


class Measure(ABC):
    """Accumulates over the batches of one validation, on every rank its share.

    It is no module, so that nothing of it is in a checkpoint. A new one has seen nothing, and a deep copy of that is
    made for each validation and each version of the weights; networks are shared between the copies.
    """

    def check(self) -> None:  # noqa: B027 (most need no file)
        """Raise a UserError where a file that it needs is not there."""

    @abstractmethod
    def update(self, seen: Autoencoded) -> None:
        """Adds a batch; without gradients."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The numbers (0-dim) by name, over all ranks and the same on each; every rank must call it.

        What cannot be told from what was seen is left out.
        """


def shown(seen: Autoencoded) -> tuple[Tensor, Tensor]:
    """Images and reconstructions as they would be saved: float32 in [-1, 1]."""
    return seen.images.float(), seen.reconstructions.float().clamp(-1.0, 1.0)
