"""Latents that resemble what a frozen vision network sees: VA-VAE.

Yao, Yang & Wang 2025 (arXiv 2501.01423), section 3.2.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.losses.base import LossTerm
from ldm.nn.features import Features
from ldm.nn.standardise import standardised


class Alignment(LossTerm):
    """What the latents, through a linear map that is learned beside them, lack in likeness to frozen features.

    The sum of two hinges: `cosine_gap`, of each place's direction, and `distance_gap`, of which places are alike. Both
    leave the latents alone within a margin. It takes the mode of the posterior; the features are the last of the
    network's maps, with mean 0 and variance 1 over the channels at each place, resized to the latents' grid.

    Args:
        latent_channels: Channels of the latents, equal to the autoencoder's.
        features: The frozen network.
        weight: Its factor in the total, before the balancing.
        cosine_margin: How far below 1 the cosine of latents and features may fall.
        distance_margin: By how much the cosine of two places may differ between latents and features.
        adaptive: Balance it by the gradients at the encoder's last weight, times `weight`, as published.
        most: The largest ratio of gradients.
        until: The global batch, counted from 0, from which on it is left out; null: never.
    """

    def __init__(
        self,
        latent_channels: int,
        features: Features,
        weight: float = 0.1,
        cosine_margin: float = 0.5,
        distance_margin: float = 0.25,
        adaptive: bool = True,
        most: float = 1e4,
        until: int | None = None,
    ) -> None:
        super().__init__("alignment", weight)
        if latent_channels < 1:
            raise ValueError(f"Alignment's latent_channels is {latent_channels}: give the autoencoder's.")
        if not (0 <= cosine_margin < 2 and 0 <= distance_margin < 2):
            raise ValueError("Cosines differ by 2 at most: Alignment's margins must lie in [0, 2).")
        if weight < 0 or most <= 0 or (until is not None and until < 0):
            raise ValueError("Alignment's weight and until must be 0 or more, and most positive.")
        self.features = features
        self.cosine_margin, self.distance_margin = cosine_margin, distance_margin
        self.balance = "encoder" if adaptive else "none"
        self.most, self.until = most, until
        self.projection = nn.Conv2d(latent_channels, features.sizes()[-1].channels, 1, bias=False)

    def weight_at(self, batch: int) -> float:
        return self.weight if self.until is None or batch < self.until else 0.0

    def check(self, autoencoder: Autoencoder) -> None:
        super().check(autoencoder)
        if autoencoder.latent_channels != self.projection.in_channels:
            raise ValueError(
                f"Alignment was built for {self.projection.in_channels} latent channels, and the autoencoder has "
                f"{autoencoder.latent_channels}: make its latent_channels equal to that."
            )

    def check_files(self) -> None:
        self.features.check()

    def measured(self) -> bool:
        return False  # beside reconstructions it says little, and costs a pass of the network

    def forward(self, seen: Autoencoded) -> Tensor:
        latents = seen.posterior.mode
        projected = self.projection(latents.float())
        wanted = standardised(self.features.maps(seen.images.detach())[-1])
        if wanted.shape[2:] != projected.shape[2:]:
            wanted = F.interpolate(wanted, size=projected.shape[2:], mode="bilinear", antialias=True)
        gaps = cosine_gap(projected, wanted, self.cosine_margin), distance_gap(projected, wanted, self.distance_margin)
        return gaps[0] + gaps[1]


def cosine_gap(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """Mean over places of max(0, 1 - margin - cosine) of two maps (B, C, h, w)."""
    return F.relu(1.0 - margin - F.cosine_similarity(one, other, dim=1)).mean()


def distance_gap(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """Mean over pairs of an image's places of max(0, |difference of their cosines| - margin).

    The maps (B, C, h, w) and (B, D, h, w) need not have equally many channels.
    """
    return F.relu((cosines(one) - cosines(other)).abs() - margin).mean()


def cosines(maps: Tensor) -> Tensor:
    """(B, N, N): the cosine of each two of the N places of maps (B, C, h, w)."""
    directions = F.normalize(rearrange(maps, "b c h w -> b (h w) c"), dim=2)
    return directions @ directions.transpose(1, 2)
