"""The loss of an autoencoder: a weighted sum of named terms, each per pixel value.

Convention. `reconstruction` is the mean over the B*C*H*W pixel values. `kl` is the KL divergence in nats,
summed over the latent and divided by the C*H*W pixel values of an image, averaged over the batch. The published
losses instead sum both over the image; dividing both by C*H*W changes no ratio, so a weight published for the
sums, such as 1e-6, is the weight here. (For a *mean* over the latent it would read
weight * latent values / pixel values: 2.1e-8 for kl-f8.)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.autoencoders.gaussian import DiagonalGaussian


class LossTerm(nn.Module, ABC):
    """One term of an autoencoder's loss.

    Args:
        name: Its key in the loss's result, and so in the logs.
        weight: Its factor in the total.
    """

    def __init__(self, name: str, weight: float) -> None:
        super().__init__()
        self.name = name
        self.weight = weight

    @abstractmethod
    def forward(self, images: Tensor, reconstructions: Tensor, posterior: DiagonalGaussian) -> Tensor:
        """The term without its weight, 0-dim, per pixel value; images are float32 (B, C, H, W) in [-1, 1]."""


class Reconstruction(LossTerm):
    """Mean absolute or squared error.

    Args:
        error: "l1" or "l2".
        weight: Its factor in the total.
    """

    def __init__(self, error: Literal["l1", "l2"] = "l1", weight: float = 1.0) -> None:
        super().__init__("reconstruction", weight)
        if error not in ("l1", "l2"):
            raise ValueError(f'The reconstruction error is {error!r}: choose "l1" or "l2".')
        self.error = error

    def forward(self, images: Tensor, reconstructions: Tensor, posterior: DiagonalGaussian) -> Tensor:
        if self.error == "l1":
            return F.l1_loss(reconstructions, images)
        return F.mse_loss(reconstructions, images)


class KL(LossTerm):
    """KL divergence of the raw posterior from N(0, 1), nats per pixel value.

    Args:
        weight: Its factor in the total.
    """

    def __init__(self, weight: float = 1e-6) -> None:
        super().__init__("kl", weight)

    def forward(self, images: Tensor, reconstructions: Tensor, posterior: DiagonalGaussian) -> Tensor:
        return posterior.kl().float().mean() / images[0].numel()


class AutoencoderLoss(nn.Module):
    """Reconstruction error + kl_weight * KL + further terms, in float32 under autocast too.

    Called with (images, reconstructions, posterior), the posterior in raw units; returns every term without
    its weight under its name, and their weighted sum under "total". Each term is per pixel value, the KL too,
    which leaves weights published for sums as they are (docs/autoencoder.md).

    Args:
        reconstruction: "l1" or "l2": mean absolute or squared error per pixel value.
        kl_weight: Weight of the KL divergence in nats per pixel value; the published 1e-6 is 1e-6 here.
        terms: Further terms.
    """

    def __init__(
        self,
        reconstruction: Literal["l1", "l2"] = "l1",
        kl_weight: float = 1e-6,
        terms: list[LossTerm] | None = None,
    ) -> None:
        super().__init__()
        all_terms = [Reconstruction(reconstruction), KL(kl_weight), *(terms or [])]
        names = [term.name for term in all_terms]
        if len({*names, "total"}) <= len(names):
            raise ValueError(f'The loss terms {names} need different names, and none may be "total".')
        self.terms = nn.ModuleList(all_terms)

    def forward(self, images: Tensor, reconstructions: Tensor, posterior: DiagonalGaussian) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        with torch.autocast(images.device.type, enabled=False):
            inputs = images.float(), reconstructions.float(), posterior
            total = torch.zeros((), device=images.device)
            for term in cast(Iterable[LossTerm], self.terms):
                losses[term.name] = term(*inputs)
                total = total + term.weight * losses[term.name]
        return {**losses, "total": total}
