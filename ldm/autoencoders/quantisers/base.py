"""The seam of quantisation: latents to code words, and the gradient past that step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ldm.seeding import Draws


@dataclass(eq=False)
class Quantised:
    """What a quantiser makes of latents in training.

    Attributes:
        words: (B, C, h, w), the code words, through which gradients pass to the latents.
        codes: (B, h, w) int64, their numbers.
        penalties: what the quantiser asks to be small, by name: 0-dim, weighted, a mean over the latent's values.
    """

    words: Tensor
    codes: Tensor
    penalties: dict[str, Tensor]


class Quantiser(nn.Module, ABC):
    """Latents (B, width, h, w) to words of a finite vocabulary of the same shape.

    Args:
        width: channels of the latents.
        num_codes: words in the vocabulary.
    """

    def __init__(self, width: int, num_codes: int) -> None:
        super().__init__()
        self.width = width
        self.num_codes = num_codes

    def bounded(self, z: Tensor) -> Tensor:
        """The latents that are quantised, and that a diffusion model learns: here the encoder's own."""
        return z

    @abstractmethod
    def codes(self, z: Tensor) -> Tensor:
        """(B, h, w) int64 numbers of the words that bounded latents become."""

    @abstractmethod
    def words(self, codes: Tensor) -> Tensor:
        """(B, width, h, w) words by their numbers (B, h, w)."""

    def quantise(self, z: Tensor) -> Tensor:
        """Bounded latents -> words, without gradients."""
        return self.words(self.codes(z.detach()))

    @abstractmethod
    def learn(self, z: Tensor, draws: Draws) -> Quantised:
        """The same in training, with gradients and penalties; a learned vocabulary may move here."""


def straight_through(z: Tensor, words: Tensor) -> Tensor:
    """The words, whose gradient goes to z as it is (Bengio et al. 2013, arXiv 1308.3432)."""
    return z + (words - z).detach()
