"""What every denoising network is given, and what it owes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Conditioning:
    """What a network may hear besides x_t and the noise level. Each field is optional.

    Attributes:
        vector: (B, D), added to the embedding of the noise level.
        tokens: (B, L, D), attended to.
        mask: (B, L) bool, True where a token counts.
        concat: (B, C, H, W), joined to x_t along the channels.
        estimate: (B, C, H, W), what was last thought of x0, for networks with `self_conditioning`; None is zeros.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    concat: Tensor | None = None
    estimate: Tensor | None = None

    def with_estimate(self, x0: Tensor) -> "Conditioning":
        """The same with another estimate of x0 (B, C, H, W)."""
        return replace(self, estimate=x0)

    def rows(self, rows: slice) -> "Conditioning":
        """Some of the rows."""
        values = (getattr(self, f.name) for f in fields(self))
        return Conditioning(*(None if value is None else value[rows] for value in values))

    def join(self, other: "Conditioning") -> "Conditioning":
        """The rows of this and, below them, those of another with the same fields."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Conditioning(*(None if one is None else torch.cat([one, two]) for one, two in pairs))


class Network(nn.Module, ABC):
    """A network that sees a noised sample and answers in the terms of a `Prediction`.

    Attributes:
        in_channels: channels of x_t.
        out_channels: `in_channels`, or twice that where the variance is learned too.
        sample_shape: (C, H, W) of x_t, the shape that sampling starts from.
        self_conditioning: it takes `Conditioning.estimate` beside x_t (Chen et al. 2022, arXiv:2208.04202), so a
            process gives it one.
    """

    in_channels: int
    out_channels: int
    sample_shape: tuple[int, int, int]
    self_conditioning: bool = False

    @abstractmethod
    def forward(self, x_t: Tensor, noise_condition: Tensor, cond: Conditioning) -> Tensor:
        """x_t (B, C, H, W), noise_condition (B,) as the path gives it -> (B, out_channels, H, W)."""

    @abstractmethod
    def check(self, shape: tuple[int, int, int], cond: Conditioning) -> None:
        """Raise a ValueError that says what to change if samples of `shape` (C, H, W) or `cond` do not fit."""
