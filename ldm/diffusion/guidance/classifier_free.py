"""Classifier-free guidance."""

import math

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised


class ClassifierFree:
    """x0 = uncond + scale (cond - uncond) (Ho and Salimans 2022, arXiv 2207.12598, eq. 6 with scale = 1 + w).

    All channels are guided. x0, eps, v and velocity are affine in each other at a given x_t, so guiding x0
    guides each of them by the same rule. The learned variance, if any, is the conditional one.

    Args:
        denoise: The model under the wanted condition.
        uncond: The model with its conditions dropped.
        scale: 1 is off and never calls `uncond`; over 1 moves away from `uncond`.
    """

    def __init__(self, denoise: Denoise, uncond: Denoise, scale: float) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"guidance scale {scale} is not a finite number; 1 is off, 1.5 to 8 is usual.")
        self.denoise = denoise
        self.uncond = uncond
        self.scale = scale

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        wanted = self.denoise(x_t, t)
        if self.scale == 1:
            return wanted
        dropped = self.uncond(x_t, t)
        return Denoised(dropped.x0 + self.scale * (wanted.x0 - dropped.x0), wanted.variance)
