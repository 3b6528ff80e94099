"""Guided x0 kept within the range of pixels."""

from dataclasses import replace

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance
from ldm.diffusion.shapes import per_sample


class Clip(Guidance):
    """Clips x0 to the range of pixels; for pixel models only, as latents have no such range.

    Static thresholding: Saharia et al. 2022, arXiv 2205.11487, section 2.3. Samplers derive eps from the clipped x0.

    Args:
        low: Smallest value of a pixel.
        high: Largest value of a pixel.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"low={low} and high={high} leave no range for pixels; choose low < high (-1 and 1).")
        self.low = low
        self.high = high

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            guided = inner(x_t, t)
            return replace(guided, x0=guided.x0.clamp(self.low, self.high))

        return denoise


class DynamicThreshold(Guidance):
    """Squeezes x0 into the range of pixels without saturating it; for pixel models only, at high scales.

    Per sample, s = max(limit, quantile of |x0|); x0 is clipped to [-s, s] and brought to [-limit, limit]. Saharia et
    al. 2022, arXiv 2205.11487, section 2.3. diffusers bounds s from above too, which by default makes it plain `Clip`.
    Samplers derive eps from the x0 that comes out.

    Args:
        quantile: The share of a sample's values that is not clipped, where s is over the limit.
        limit: Largest value of a pixel, by absolute value.
    """

    def __init__(self, quantile: float = 0.995, limit: float = 1.0) -> None:
        if not 0 < quantile <= 1:
            raise ValueError(
                f"quantile={quantile} is no share of the pixels; choose over 0 and up to 1 (0.995 is usual)."
            )
        if not limit > 0:
            raise ValueError(f"limit={limit} leaves no range for pixels; choose over 0 (1 where they are in [-1, 1]).")
        self.quantile = quantile
        self.limit = limit

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            guided = inner(x_t, t)
            sizes = guided.x0.flatten(1).abs()
            exact = torch.promote_types(sizes.dtype, torch.float32)  # quantile knows no half precision
            s = sizes.to(exact).quantile(self.quantile, dim=1).clamp(min=self.limit)
            shrink = per_sample(torch.where(s > self.limit, self.limit / s, 1), guided.x0)
            bound = per_sample(s, guided.x0)
            return replace(guided, x0=shrink * guided.x0.clamp(-bound, bound))

        return denoise
