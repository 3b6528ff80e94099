"""Adaptive projected guidance."""

from dataclasses import replace

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance, check_scale
from ldm.diffusion.shapes import per_sample


class APG(Guidance):
    """In place of ClassifierFree at high scales: drops the part of guidance that oversaturates images.

    Adaptive projected guidance, Sadat et al. 2024, arXiv 2410.02416, algorithm 1, on x0. The running sum of
    (wanted - other) is cut to a norm, and of its part along the wanted x0 a share eta is kept. One guided Denoise is
    one trajectory, as it remembers the sum; with eta = 1, momentum = 0 and no norm_threshold it is ClassifierFree.

    Args:
        scale: 1 is off and asks nothing more of the model; 4 to 15 is usual.
        eta: Share kept of the part along the wanted x0; 0 drops it.
        norm_threshold: Largest norm of the update of one sample, 2.5 to 15 in the paper: it grows as the square root
            of the number of values a sample has. Left out, no limit.
        momentum: Share of the sum before that goes into the next; below 0 it looks for what is new.
    """

    needs_other = True

    def __init__(
        self, scale: float = 4.0, eta: float = 0.0, norm_threshold: float | None = None, momentum: float = -0.5
    ) -> None:
        check_scale(scale)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} is no share; choose from 0 (nothing along x0) to 1 (all, as ClassifierFree).")
        if norm_threshold is not None and not norm_threshold > 0:
            raise ValueError(f"norm_threshold={norm_threshold} leaves no guidance; choose over 0, or leave it out.")
        if not -1 < momentum < 1:
            raise ValueError(f"momentum={momentum} lets the sum grow; choose over -1 and under 1 (-0.5 is usual).")
        self.scale = scale
        self.eta = eta
        self.norm_threshold = norm_threshold
        self.momentum = momentum

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        if self.scale == 1:
            return inner
        total: Tensor | None = None

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            nonlocal total
            wanted, other = contrast.ask_both(x_t, t)
            difference = wanted.x0 - other.x0
            total = difference if total is None else difference + self.momentum * total
            guided = inner(x_t, t)
            return replace(guided, x0=guided.x0 + (self.scale - 1) * self.update(total, wanted.x0))

        return denoise

    def update(self, total: Tensor, x0: Tensor) -> Tensor:
        """The sum of differences (B, ...), cut and with only a share eta of what lies along x0 (B, ...)."""
        if self.norm_threshold is not None:
            norm = total.flatten(1).norm(dim=1)
            total = total * per_sample(torch.where(norm > self.norm_threshold, self.norm_threshold / norm, 1), total)
        squared = x0.flatten(1).square().sum(1)
        along = torch.where(squared > 0, (total * x0).flatten(1).sum(1) / squared, 0)
        return total - (1 - self.eta) * per_sample(along, x0) * x0
