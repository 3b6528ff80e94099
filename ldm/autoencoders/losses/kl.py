"""What keeps the latents close to a Gaussian."""

from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.losses.base import LossTerm


class KL(LossTerm):
    """KL divergence of the raw posterior from N(0, 1), nats per pixel value.

    Args:
        weight: Its factor in the total.
        free_bits: Nats that each latent value may have without being charged, on the batch's average (Kingma et al.
            2016, arXiv 1606.04934, appendix C.8): only what exceeds them counts.
        warmup: Global batches over which the weight rises from 0.
    """

    def __init__(self, weight: float = 1e-6, free_bits: float = 0.0, warmup: int = 0) -> None:
        super().__init__("kl", weight)
        if min(weight, free_bits, warmup) < 0:
            raise ValueError("The KL's weight, free_bits and warmup must be 0 or more.")
        self.free_bits = free_bits
        self.warmup = warmup

    def weight_at(self, batch: int) -> float:
        return self.weight * min(1.0, batch / self.warmup) if self.warmup else self.weight

    def forward(self, seen: Autoencoded) -> Tensor:
        if self.free_bits == 0:
            return seen.posterior.kl().float().mean() / seen.images[0].numel()
        charged = seen.posterior.kl_values().mean(0).clamp_min(self.free_bits)
        return charged.sum() / seen.images[0].numel()
