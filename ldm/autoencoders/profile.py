"""What latents look like, per channel: spread, tails and where in frequency their power lies; over all ranks.

Latents whose power reaches far into high frequencies, or whose tails are heavy, are harder to denoise (Skorokhodov et
al. 2025, arXiv 2502.14831).
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ldm.autoencoders.ranks import summed
from ldm.autoencoders.statistics import LatentStatistics

ROUNDING = 1e-9  # keeps a frequency on the edge of two bands in the lower one
NYQUIST = 0.5  # cycles per latent position; only the corners of the plane of frequencies lie beyond


@dataclass
class Profile:
    """The result of a `LatentProfile`; tensors are float64 on the CPU.

    Attributes:
        num_samples: images that it comes from.
        mean: (C,).
        std: (C,); divides by the count.
        kurtosis: (C,), excess: 0 for a normal distribution, -1.2 for a uniform one, NaN where all values are one.
        spectrum: (C, bands), mean power per frequency, from low to high: 1 in every band for white noise of unit
            variance. NaN where the latents are too small to have a frequency in the band.
    """

    num_samples: int
    mean: Tensor
    std: Tensor
    kurtosis: Tensor
    spectrum: Tensor

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no NaN: None in its place."""
        values = asdict(self).items()
        return {name: without_nan(value.tolist()) if isinstance(value, Tensor) else value for name, value in values}


class LatentProfile:
    """Accumulates in float64 on the CPU, in any batches of any size; equal whatever the split, up to its rounding.

    Args:
        channels: Channels of the latents.
        bands: Parts into which the frequencies from 0 to 0.5 cycles per position are cut, each with its upper edge;
            what lies beyond, in the corners, counts to the last. The mean of a latent (frequency 0) counts to none.
    """

    def __init__(self, channels: int, bands: int = 4) -> None:
        self.statistics = LatentStatistics(channels)
        self.cubes = torch.zeros(channels, dtype=torch.float64)  # sum of (z - mean)**3
        self.fourths = torch.zeros(channels, dtype=torch.float64)  # sum of (z - mean)**4
        self.power = torch.zeros(channels, bands, dtype=torch.float64)  # sum over images and frequencies
        self.frequencies = torch.zeros(bands, dtype=torch.float64)  # how many were summed

    def update(self, latents: Tensor) -> None:
        """Adds latents (B, C, h, w), raw or normalised. ValueError as in `LatentStatistics.update`."""
        batch = LatentProfile(len(self.cubes), len(self.frequencies))
        batch.statistics.update(latents)
        if batch.statistics.count == 0:
            return
        values = latents.detach().cpu().double()
        centred = rearrange(values, "b c h w -> c (b h w)") - batch.statistics.mean[:, None]
        batch.cubes, batch.fourths = (centred**3).sum(1), (centred**4).sum(1)
        power = torch.fft.fft2(values, norm="ortho").abs().square().sum(0)  # (C, h, w)
        members = band_members(values.shape[2], values.shape[3], len(self.frequencies))  # (bands, h, w)
        batch.power = torch.einsum("c h w, k h w -> c k", power, members)
        batch.frequencies = members.sum((1, 2)) * len(values)
        self.merge(batch)

    def merge(self, other: "LatentProfile") -> None:
        """Adds what another has seen."""
        together = LatentStatistics(len(self.cubes))
        for part in (self, other):
            together.merge(part.statistics)
        cubes, fourths = (
            torch.stack(sums).sum(0)
            for sums in zip(self.around(together.mean), other.around(together.mean), strict=True)
        )
        self.statistics, self.cubes, self.fourths = together, cubes, fourths
        self.power = self.power + other.power
        self.frequencies = self.frequencies + other.frequencies

    def around(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of third and fourth powers around another mean, by the binomial theorem; such sums just add up."""
        count, squares = self.statistics.count, self.statistics.squares
        shift = self.statistics.mean - mean
        cubes = self.cubes + 3 * shift * squares + count * shift**3
        fourths = self.fourths + 4 * shift * self.cubes + 6 * shift**2 * squares + count * shift**4
        return cubes, fourths

    def across_ranks(self) -> "LatentProfile":
        """What all ranks together have seen, the same on each; every rank must call it."""
        channels, bands = self.power.shape
        total = LatentProfile(channels, bands)
        total.statistics = self.statistics.across_ranks()
        sums = [*self.around(total.statistics.mean), self.power.flatten(), self.frequencies]
        sizes = [len(part) for part in sums]
        total.cubes, total.fourths, power, total.frequencies = summed(torch.cat(sums)).split(sizes)
        total.power = power.unflatten(0, (channels, bands))
        return total

    def finalize(self) -> Profile:
        """The profile over all ranks; every rank must call it. ValueError if no rank has seen a latent."""
        return self.across_ranks().described()

    def described(self) -> Profile:
        """The profile of what this one has seen. ValueError if that is nothing."""
        mean, std, num_samples = self.statistics.moments()
        kurtosis = self.fourths / self.statistics.count / std**4 - 3.0
        return Profile(num_samples, mean, std, kurtosis, self.power / self.frequencies)


def band_members(height: int, width: int, bands: int) -> Tensor:
    """(bands, h, w), 1 where a frequency of an h x w transform lies in the band, else 0; frequency 0 is in none."""
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    radius = (rows[:, None] ** 2 + columns[None, :] ** 2).sqrt()
    band = (radius / NYQUIST * bands - ROUNDING).ceil().long().clamp(max=bands) - 1
    band[0, 0] = bands
    return torch.stack([(band == number).double() for number in range(bands)])


def without_nan(value: Any) -> Any:
    """Numbers in nested lists, None for each NaN."""
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value
