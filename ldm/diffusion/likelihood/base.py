"""The seam of every estimate of -log p(x0)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.samplers.base import Noise


@dataclass(frozen=True)
class Term:
    """One of the parts whose sum is -log p(x0), a bound on it or an estimate.

    Attributes:
        name: "prior", "step", "decoder", or "scale": of a change of variables.
        t: the time that it belongs to.
        nats: in nats per dimension: (B,).
    """

    name: str
    t: float
    nats: Tensor


class Likelihood(ABC):
    """A way to compute -log p(x0) from a denoiser. It draws no random number by itself.

    For plain data the terms are those of a density of x0. For data of `levels` values, evenly spaced from -1 to 1 as
    pixels are, they are those of the probability of these values.

    Attributes:
        bounds: its mean lies on or above -log p(x0) whatever the denoiser.
    """

    bounds: bool

    @abstractmethod
    def terms(
        self, denoise: Denoise, path: NoisePath, x0: Tensor, noise: Noise, levels: int | None = None
    ) -> Iterator[Term]:
        """The terms for x0 (B, C, ...), one by one, in an order of its own; always `num_terms` of them.

        `noise` gives the next standard normal tensor of the shape, dtype and device of x0.
        """

    @abstractmethod
    def num_terms(self, path: NoisePath) -> int:
        """How many there are."""

    def check(self, path: Path) -> None:
        """Raise ValueError where this has no meaning on the path, saying what to use instead."""
        if not isinstance(path, NoisePath):
            raise ValueError(
                f"{type(path).__name__} adds no Gaussian noise, so its model gives no likelihood: use a model trained "
                "on a NoisePath, such as Cosine."
            )


def total(terms: Iterable[Term]) -> Tensor:
    """Their sum: nats per dimension (B,)."""
    return torch.stack([term.nats for term in terms]).sum(0)


def bits(nats: Tensor) -> Tensor:
    """Nats as bits."""
    return nats / math.log(2)


def uniform(noise: Noise, per_sample: bool = False) -> Tensor:
    """Uniform numbers in (0, 1) like x0 (B, ...), or one a sample (B,), from the next of `noise`."""
    drawn = noise()
    u: Tensor = torch.special.ndtr(drawn.flatten(1)[:, 0] if per_sample else drawn)
    return u


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)
