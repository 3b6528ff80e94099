"""The distance of two images as a vision network sees it."""

import torch.nn.functional as F
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.losses.base import LossTerm
from ldm.nn.features import Features


class Perceptual(LossTerm):
    """Mean over feature maps of the squared distance of the features' directions at each place.

    LPIPS without its learned weights of channels (Zhang et al. 2018, arXiv 1801.03924, equation 1, the baseline "no
    calibration"), through any network; with one that was trained on the images at hand it needs nobody's weights.

    Args:
        features: The network; the finer half of its maps tell most.
        weight: Its factor in the total.
    """

    in_likelihood = True

    def __init__(self, features: Features, weight: float = 1.0) -> None:
        super().__init__("perceptual", weight)
        self.features = features

    def check_files(self) -> None:
        self.features.check()

    def forward(self, seen: Autoencoded) -> Tensor:
        wanted, found = self.features.maps(seen.images.detach()), self.features.maps(seen.reconstructions)
        distances = [directions_apart(one, other) for one, other in zip(wanted, found, strict=True)]
        total: Tensor = sum(distances[1:], distances[0])
        return total / len(distances)


def directions_apart(one: Tensor, other: Tensor) -> Tensor:
    """Mean over places of the squared distance of two maps' (B, C, h, w) unit vectors, 0-dim.

    The length is bounded below within the root, whose gradient is then finite at a vector of zeros.
    """
    units = [x * x.square().sum(1, keepdim=True).add(1e-8).rsqrt() for x in (one, other)]
    return F.mse_loss(units[0], units[1], reduction="none").sum(1).mean()
