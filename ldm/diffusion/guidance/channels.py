"""Guidance of some of the channels."""

from dataclasses import replace

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance


class Channels(Guidance):
    """Guides the first channels only; to repeat published numbers of DiT.

    The official DiT guides channels 0 to 2 of its 4 (Peebles and Xie 2022, arXiv 2212.09748, its sampling code).

    Args:
        count: How many channels are guided.
    """

    needs_rule = True

    def __init__(self, count: int = 3) -> None:
        if count < 1:
            raise ValueError(f"count={count} guides no channel; choose at least 1 (3 for the official DiT).")
        self.count = count

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            guided = inner(x_t, t)  # first, as it may ask for wanted and other in one pass
            rest = contrast.ask_wanted(x_t, t).x0[:, self.count :]
            x0 = torch.cat([guided.x0[:, : self.count], rest], dim=1)
            return replace(guided, x0=x0)

        return denoise
