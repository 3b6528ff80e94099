"""Noise levels balanced by how well each can be learned at all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ldm.diffusion.objectives.base import Example, Objective
from ldm.diffusion.objectives.simple import Simple

if TYPE_CHECKING:
    from ldm.diffusion.process import Diffusion

MOST_LOGSNR = 40.0  # pure noise, whose logsnr is infinite, counts as this far out


class LearnedUncertainty(Objective, nn.Module):
    """loss / exp(u) + u, u a learned function of the noise level (Karras et al. 2023, arXiv 2312.02696, eq. 14 and 15).

    The best u is the logarithm of the mean loss at each noise level, so each then pulls on the network equally hard.
    u is linear in Fourier features of ln(sigma / alpha) / 4 and starts at 0. Its weights are trained with the network;
    sampling has no use for them. The loss it shows may be below 0.

    Args:
        objective: What is balanced; left out, Simple.
        channels: Number of Fourier features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, objective: Objective | None = None, channels: int = 128) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels={channels} leaves nothing to learn; choose at least 1 (128 is usual).")
        self.objective = Simple() if objective is None else objective
        self.channels = channels
        self.needs_variance = self.objective.needs_variance
        self.is_bound = self.objective.is_bound
        # Normal frequencies and uniform phases as in the paper, but the same in every run: quantiles instead of draws.
        share = (torch.arange(channels, dtype=torch.float64) + 0.5) / channels
        golden = torch.arange(channels, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2) % 1
        self.register_buffer("frequencies", (2 * math.pi * torch.special.ndtri(share)).float())
        self.register_buffer("phases", (2 * math.pi * golden).float())
        self.weight = nn.Parameter(torch.zeros(channels))

    def __call__(self, diffusion: Diffusion, example: Example, output: Tensor, variance: Tensor | None) -> Tensor:
        losses = self.objective(diffusion, example, output, variance)
        u = self.uncertainty(diffusion.path.logsnr(example.t)).to(losses.dtype)
        return losses / u.exp() + u

    def uncertainty(self, logsnr: Tensor) -> Tensor:
        """u (B,), float32, for logsnr (B,)."""
        heard = -logsnr.detach().float().clamp(-MOST_LOGSNR, MOST_LOGSNR) / 8
        features = math.sqrt(2) * (heard[:, None] * self.frequencies + self.phases).cos()  # (B, channels)
        return (features * self.weight).sum(1)

    def check(self, diffusion: Diffusion) -> None:
        self.objective.check(diffusion)
        if diffusion.timesteps.learns:
            raise ValueError(
                "LearnedUncertainty makes the losses of all noise levels alike, and LossAware draws times by how they "
                "differ: use UniformTimesteps, LogNormalSigma or another law that does not learn."
            )
