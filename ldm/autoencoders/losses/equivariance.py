"""A turned, smaller latent is the latent of the turned, smaller image: EQ-VAE.

Kouzelis et al. 2025 (arXiv 2502.09509).
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.losses.base import LossTerm
from ldm.autoencoders.losses.reconstruction import Reconstruction
from ldm.autoencoders.quantised import QuantisedAutoencoder
from ldm.autoencoders.quantisers.base import straight_through


class Equivariance(LossTerm):
    """The error of what is decoded from transformed latents, against the transformed images.

    Each global batch draws one transformation, the same on all ranks: shrunk bilinearly by a factor between `smallest`
    and 1, both sides alike, and turned by 90, 180 or 270 degrees. The published code replaces the reconstruction in
    half of the batches; here it stands beside it in each, at the cost of a further pass of the decoder, on average less
    than half as large as the first.

    The latents are a sample of the posterior. Code words do not turn with the image, so of a quantised autoencoder the
    latents are transformed before they are quantised, and the gradient passes straight through that step.

    Args:
        weight: Its factor in the total.
        smallest: The least factor, in (0, 1]; with 1 it only turns.
        terms: What measures the error, each with its weight; left out, the mean absolute error. Adversarial terms are
            not for this.
    """

    def __init__(self, weight: float = 1.0, smallest: float = 0.25, terms: list[LossTerm] | None = None) -> None:
        super().__init__("equivariance", weight)
        if weight < 0 or not 0 < smallest <= 1:
            raise ValueError("Equivariance's weight must be 0 or more, and smallest lie in (0, 1].")
        self.terms = nn.ModuleList([Reconstruction()] if terms is None else terms)
        wrong = [term.name for term in self.each_term() if not term.in_likelihood]
        if wrong or not len(self.terms):
            raise ValueError(f"Equivariance's terms measure a reconstruction, and {wrong or 'none'} do: give others.")
        self.smallest = smallest

    def each_term(self) -> Iterator[LossTerm]:
        yield from cast(Iterable[LossTerm], self.terms)

    def measured(self) -> bool:
        return False  # its transformations are drawn in training only

    def forward(self, seen: Autoencoded) -> Tensor:
        draws = seen.draws
        if draws is None:
            raise ValueError("Equivariance needs the random numbers of a training batch.")
        z = seen.posterior.sample(draws.normal(*seen.posterior.mean.shape[1:]))
        shrink, turn = draws.shared(2).tolist()
        rows, columns = shrunk(z, self.smallest + (1.0 - self.smallest) * shrink)
        pixels, turns = seen.autoencoder.downsample, 1 + int(3 * turn)
        images = transformed(seen.images, (rows * pixels, columns * pixels), turns)
        decoded = decode(seen.autoencoder, transformed(z, (rows, columns), turns)).float()
        there = dataclasses.replace(seen, images=images, reconstructions=decoded)
        errors = [term.weight * term(there) for term in self.each_term()]
        total: Tensor = sum(errors[1:], errors[0])
        return total


def shrunk(z: Tensor, factor: float) -> tuple[int, int]:
    """Rows and columns of z (B, C, h, w) times a factor, at least 1."""
    rows, columns = (max(1, round(factor * side)) for side in z.shape[2:])
    return rows, columns


def transformed(maps: Tensor, size: tuple[int, int], turns: int) -> Tensor:
    """Maps (B, C, H, W) resized to `size` and then turned left by 90 degrees `turns` times."""
    if maps.shape[2:] != size:
        maps = F.interpolate(maps, size=size, mode="bilinear", antialias=True)
    return maps.rot90(turns, dims=(2, 3))


def decode(autoencoder: Autoencoder, z: Tensor) -> Tensor:
    """Images, not clipped, from raw latents, with gradients to these."""
    if isinstance(autoencoder, QuantisedAutoencoder):
        return autoencoder.from_words(straight_through(z, autoencoder.quantiser.quantise(z)))
    return autoencoder.reconstruct(z)
