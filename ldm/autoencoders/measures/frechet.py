"""How far the set of reconstructions is from the set of images, as a vision network sees them."""

import torch
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.measures.base import Measure, shown
from ldm.autoencoders.ranks import summed
from ldm.nn.features import Features


class FrechetDistance(Measure):
    """`rfid`, the Fréchet distance of images and reconstructions (Heusel et al. 2017, arXiv 1706.08500) in a network's
    pooled features. It is the published rFID only with the published network's weights; it depends on the number of
    images, so compare only numbers of the same features and the same validation set.

    Args:
        features: the network, such as `TimmFeatures`.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self.originals = Latest(features)
        self.one, self.other = Moments(features.width), Moments(features.width)

    def check(self) -> None:
        self.features.check()

    def update(self, seen: Autoencoded) -> None:
        _, reconstructions = shown(seen)
        self.one.update(self.originals.of(seen.images))
        self.other.update(self.features.pooled(reconstructions))

    def compute(self) -> dict[str, Tensor]:
        self.originals.forget()
        one, other = self.one.across_ranks(), self.other.across_ranks()
        return {"rfid": frechet_distance(one, other)} if one.count > 1 else {}


class Latest:
    """The features of the latest images: each version of the weights asks for those of the same originals."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.held: tuple[Tensor, Tensor] | None = None  # images and their features

    def of(self, images: Tensor) -> Tensor:
        if self.held is None or self.held[0] is not images:
            self.held = images, self.features.pooled(images.float())
        return self.held[1]

    def forget(self) -> None:
        self.held = None

    def __deepcopy__(self, memo: dict[int, object]) -> "Latest":
        return self


class Moments:
    """Count, mean and covariance of vectors, from sums in float64 on the CPU.

    Args:
        width: of the vectors.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.products = torch.zeros(width, width, dtype=torch.float64)

    def update(self, vectors: Tensor) -> None:
        """Adds (B, width)."""
        vectors = vectors.detach().cpu().double()
        self.count += len(vectors)
        self.total = self.total + vectors.sum(0)
        self.products = self.products + vectors.T @ vectors

    def across_ranks(self) -> "Moments":
        """What all ranks together have seen, the same on each; every rank must call it."""
        width = len(self.total)
        counted = torch.tensor([self.count], dtype=torch.float64)
        sums = summed(torch.cat([counted, self.total, self.products.flatten()]))
        together = Moments(width)
        together.count, together.total = int(sums[0]), sums[1 : 1 + width]
        together.products = sums[1 + width :].unflatten(0, (width, width))
        return together

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """Unbiased."""
        return (self.products - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


def frechet_distance(one: Moments, other: Moments) -> Tensor:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), 0-dim, of normal distributions with these moments; NaN stays NaN.

    The last trace is that of (R S2 R)^(1/2) with R = S1^(1/2), whose matrix is symmetric.
    """
    apart = (one.mean - other.mean).square().sum() + one.covariance.trace() + other.covariance.trace()
    if not apart.isfinite():
        return apart
    root = square_root(one.covariance)
    common = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp_min(0).sqrt().sum()
    return (apart - 2 * common).clamp_min(0)


def square_root(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix without negative eigenvalues, but for rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
