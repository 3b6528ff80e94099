"""CFG-Zero*: guidance for flow matching."""

from dataclasses import replace

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance, check_scale, one_time
from ldm.diffusion.predictions import Velocity
from ldm.diffusion.shapes import per_sample


class CFGZeroStar(Guidance):
    """In place of ClassifierFree for flow matching: scales the other velocity, and starts late.

    u + (scale - 1) (u_wanted - s u_other) with s = <u_wanted, u_other> / |u_other|^2 per sample, u = dx_t/dt, and no
    movement at all at the start: Fan et al. 2025, arXiv 2503.18886. In x0, u stands for x0 - a x_t up to a factor that
    cancels (x0 = a x_t + b u). Meant for deterministic samplers: while nothing moves, the model is not asked, so there
    is no learned variance either.

    Args:
        scale: 1 is ClassifierFree's "off": the wanted velocity, after the start.
        zero_init: Share of the path, from noise on, where the velocity is 0; 0 is off. The paper's is 4 % of the
            steps. It covers the first step even where steps are longer than this share.
    """

    needs_noise = True
    needs_other = True

    def __init__(self, scale: float = 1.5, zero_init: float = 0.04) -> None:
        check_scale(scale)
        if not 0 <= zero_init < 1:
            raise ValueError(f"zero_init={zero_init} is no share of the path; choose from 0 (off) to under 1.")
        self.scale = scale
        self.zero_init = zero_init

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        path = contrast.path
        start = path.t_max - self.zero_init * (path.t_max - path.t_min)

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            still = per_sample(Velocity().x0_coefficients(t, path)[0], x_t) * x_t  # the x0 of velocity 0
            if one_time(t) > start:
                return Denoised(still)
            if self.scale == 1:
                return inner(x_t, t)
            wanted, other = (answer.x0 - still for answer in contrast.ask_both(x_t, t))
            guided = inner(x_t, t)
            update = wanted - per_sample(best(wanted, other), x_t) * other
            return replace(guided, x0=guided.x0 + (self.scale - 1) * update)

        return denoise


def best(wanted: Tensor, other: Tensor) -> Tensor:
    """The factor (B,) that brings `other` nearest to `wanted`, both (B, ...); 0 where other is 0."""
    squared = other.flatten(1).square().sum(1)
    return torch.where(squared > 0, (wanted * other).flatten(1).sum(1) / squared, 0)
