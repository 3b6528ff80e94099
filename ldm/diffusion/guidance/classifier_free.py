"""Classifier-free guidance."""

from collections.abc import Callable

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance, check_scale, one_time


class ClassifierFree(Guidance):
    """The usual guidance, away from no condition or a negative one; the first choice, with Interval.

    x0 + (scale - 1) (wanted - other): Ho and Salimans 2022, arXiv 2207.12598, eq. 6, scale = 1 + w. All channels are
    guided (see `Channels`). Every prediction is affine in x0 at a given x_t, so guiding x0 guides each of them by the
    same rule. The learned variance, if any, is the conditional one.

    Args:
        scale: 1 is off and asks nothing more of the model; 1.5 to 8 is usual. Or a function of t.
        scale_at_data: The scale at t = 0, where it changes linearly in t, `scale` being that at t = 1; left out,
            `scale` throughout.
    """

    needs_other = True

    def __init__(self, scale: float | Callable[[float], float] = 1.5, scale_at_data: float | None = None) -> None:
        if not callable(scale):
            check_scale(scale)
        if scale_at_data is not None:
            check_scale(scale_at_data)
            if callable(scale):
                raise ValueError("A scale that is a function of t needs no scale_at_data: leave that out.")
        self.scale = scale
        self.scale_at_data = scale_at_data

    def at(self, t: float) -> float:
        """The scale at time t."""
        if callable(self.scale):
            return self.scale(t)
        if self.scale_at_data is None:
            return self.scale
        return self.scale_at_data + t * (self.scale - self.scale_at_data)

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            scale = self.at(one_time(t))
            if scale == 1:
                return inner(x_t, t)
            wanted, other = contrast.ask_both(x_t, t)
            guided = inner(x_t, t)
            return Denoised(guided.x0 + (scale - 1) * (wanted.x0 - other.x0), guided.variance, guided.x_t)

        return denoise
