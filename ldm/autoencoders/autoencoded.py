"""One pass of a batch through an autoencoder, as its loss and its measures see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.seeding import Draws

if TYPE_CHECKING:
    from ldm.autoencoders.base import Autoencoder


@dataclass(eq=False)
class Autoencoded:
    """What went in, what came out, and what lay between.

    Attributes:
        autoencoder: that did it.
        images: (B, C, H, W) in [-1, 1].
        reconstructions: (B, C, H, W), not clipped.
        posterior: of the raw latents.
        penalties: what the autoencoder itself asks to be small, by name: 0-dim, weighted, per latent value.
        codes: (B, h, w) int64 numbers of the code words, where there are any.
        draws: the batch's random numbers; None outside training.
    """

    autoencoder: "Autoencoder"
    images: Tensor
    reconstructions: Tensor
    posterior: DiagonalGaussian
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    codes: Tensor | None = None
    draws: Draws | None = None
