"""Guidance by a worse version of the same model."""

from dataclasses import replace

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance, check_scale


class Autoguidance(Guidance):
    """Away from a weaker model of the same data; better images, variety kept, no class needed.

    x0 + (scale - 1) (wanted - weak), both under the wanted condition: Karras et al. 2024, arXiv 2406.02507. The weak
    model is best a smaller network or an earlier checkpoint. It adds to the rules before it, such as ClassifierFree.

    Args:
        scale: 1 is off and asks nothing more; 1.5 to 3 is usual.
    """

    needs_weak = True

    def __init__(self, scale: float = 2.0) -> None:
        check_scale(scale)
        self.scale = scale

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        if self.scale == 1:
            return inner

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            guided = inner(x_t, t)  # first, as it may ask for wanted and other in one pass
            wanted, weak = contrast.ask_wanted(x_t, t), contrast.ask_weak(x_t, t)
            return replace(guided, x0=guided.x0 + (self.scale - 1) * (wanted.x0 - weak.x0))

        return denoise
