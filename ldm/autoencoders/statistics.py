"""Mean and standard deviation of raw latents, per channel, in one pass and over all ranks.

The variance of latents is that of the posteriors' means plus the mean of the posteriors' variances (the law of total
variance), so that no noise has to be drawn to measure it.
"""

import torch
from einops import rearrange
from torch import Tensor

from ldm.autoencoders.ranks import alone, summed


class LatentStatistics:
    """Accumulates in float64 on the CPU (MPS has no float64), however large the mean, in any batches.

    Args:
        channels: Channels of the latents.
    """

    def __init__(self, channels: int) -> None:
        self.num_samples = 0  # images
        self.count = 0  # values per channel
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)  # sum of (z - mean)**2

    def update(self, latents: Tensor, variance: Tensor | None = None) -> None:
        """Adds raw latents (B, C, h, w), or the means and variances of their posteriors.

        Raises:
            ValueError: a value is not finite, or C is another.
        """
        if latents.ndim != 4 or latents.shape[1] != len(self.mean):
            raise ValueError(
                f"Latents of shape (B, {len(self.mean)}, h, w) are needed, got {tuple(latents.shape)}: "
                "build LatentStatistics with the autoencoder's latent_channels."
            )
        if latents.numel() == 0:
            return
        values = rearrange(latents.detach().cpu().double(), "b c h w -> c (b h w)")
        if not values.isfinite().all():
            raise ValueError(
                "The latents hold NaN or Inf: encode in bfloat16 or float32 instead of float16, and check "
                "the images and the autoencoder's weights."
            )
        batch = LatentStatistics(len(self.mean))
        batch.num_samples, batch.count = len(latents), values.shape[1]
        batch.mean = values.mean(1)
        batch.squares = ((values - batch.mean[:, None]) ** 2).sum(1)
        if variance is not None:
            batch.squares += variance.detach().cpu().double().sum((0, 2, 3))
        self.merge(batch)

    def merge(self, other: "LatentStatistics") -> None:
        """Adds what another has seen: the pairwise update of Chan, Golub & LeVeque 1979 (STAN-CS-79-773)."""
        count = self.count + other.count
        if count == 0:
            return
        delta = other.mean - self.mean
        self.squares = self.squares + other.squares + delta**2 * (self.count * other.count / count)
        self.mean = self.mean + delta * (other.count / count)
        self.count = count
        self.num_samples += other.num_samples

    def across_ranks(self) -> "LatentStatistics":
        """What all ranks together have seen, the same on each; every rank must call it."""
        if alone():
            return self
        # Two sums: first for the common mean, then for the squares around it, which loses no digits.
        counts = torch.tensor([self.num_samples, self.count], dtype=torch.float64)  # exact up to 2**53
        sums = summed(torch.cat([counts, self.count * self.mean]))
        total = LatentStatistics(len(self.mean))
        total.num_samples, total.count = int(sums[0]), int(sums[1])
        total.mean = sums[2:] / max(1, total.count)
        total.squares = summed(self.squares + self.count * (self.mean - total.mean) ** 2)
        return total

    def finalize(self) -> tuple[Tensor, Tensor, int]:
        """(mean, std, number of images) over all ranks, for `Autoencoder.set_statistics`.

        Mean and std are float64 (C,) on the CPU; std divides by the count. Every rank must call it.
        ValueError if no rank has seen a latent.
        """
        return self.across_ranks().moments()

    def moments(self) -> tuple[Tensor, Tensor, int]:
        """(mean, std, number of images) as `finalize`, of what this one has seen."""
        if self.count == 0:
            raise ValueError("No latents to measure: give at least one image.")
        return self.mean, (self.squares / self.count).sqrt(), self.num_samples
