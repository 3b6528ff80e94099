"""Guidance that does not raise the contrast of images."""

from dataclasses import replace

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance
from ldm.diffusion.shapes import per_sample


class Rescale(Guidance):
    """Brings the guided x0 back to the wanted one's spread; against overexposure at high scales.

    Lin et al. 2023, arXiv 2305.08891, eq. 15 and 16, with the unbiased standard deviation of each sample over all its
    channels and places. They rescale what their network returns, v; here it is x0, so that the rule is one for every
    prediction, and the one that overexposes. At pure noise (alpha = 0) the two are the same, as v is -x0 there.

    Args:
        phi: Share of the rescaled x0 in the answer: 0 is off, 0.7 is the paper's.
    """

    needs_rule = True

    def __init__(self, phi: float = 0.7) -> None:
        if not 0 <= phi <= 1:
            raise ValueError(f"phi={phi} is no share; choose from 0 (off) to 1 (fully rescaled), 0.7 is usual.")
        self.phi = phi

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        if self.phi == 0:
            return inner

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            guided = inner(x_t, t)  # first, as it may ask for wanted and other in one pass
            wanted = contrast.ask_wanted(x_t, t).x0
            std = guided.x0.flatten(1).std(1)
            ratio = torch.where(std > 0, wanted.flatten(1).std(1) / std, 1)
            return replace(guided, x0=per_sample(self.phi * ratio + (1 - self.phi), wanted) * guided.x0)

        return denoise
