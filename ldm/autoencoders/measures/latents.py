"""What the latents look like while an autoencoder trains."""

from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.measures.base import Measure
from ldm.autoencoders.profile import LatentProfile


class LatentShape(Measure):
    """Of the posterior's means, raw, for each channel c: `latent_std/c`, `latent_kurtosis/c` (excess: 0 for a normal
    distribution) and, for each band b of frequencies from low to high, `latent_spectrum/c/b`, the mean power at a
    frequency divided by the channel's variance: 1 in each band for white noise.

    Args:
        channels: channels of the latents.
        bands: parts into which the frequencies up to half a cycle per position are cut, each as wide as the others.
    """

    def __init__(self, channels: int, bands: int = 4) -> None:
        self.profile = LatentProfile(channels, bands)

    def update(self, seen: Autoencoded) -> None:
        latents = seen.posterior.mean.detach()
        self.profile.update(latents[latents.isfinite().flatten(1).all(1)])  # one rank must not stop and let others wait

    def compute(self) -> dict[str, Tensor]:
        total = self.profile.across_ranks()
        if total.statistics.count == 0:
            return {}
        found = total.described()
        numbers = {}
        for channel, std in enumerate(found.std):
            numbers[f"latent_std/{channel}"] = std
            numbers[f"latent_kurtosis/{channel}"] = found.kurtosis[channel]
            for band, power in enumerate(found.spectrum[channel]):
                numbers[f"latent_spectrum/{channel}/{band}"] = power / std**2
        return {name: value for name, value in numbers.items() if value.isfinite()}
