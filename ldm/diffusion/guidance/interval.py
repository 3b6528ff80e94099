"""Guidance in a part of the path only."""

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance, one_time


class Interval(Guidance):
    """Limits the rules before it to low <= t <= high; keeps variety and halves the cost elsewhere. Goes last.

    Outside, the wanted model alone is asked. Kynkäänniemi et al. 2024, arXiv 2404.07724, section 3, who give the
    interval in noise levels sigma / alpha; `NoisePath.t_from_logsnr(-2 log(sigma / alpha))` is the t of one.

    Args:
        low: Where guidance ends on the way to data, in t; 0 is data.
        high: Where it begins, in t; 1 is noise. 0.7 to 0.9 is usual.
    """

    needs_rule = True
    keeps = True

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        if not 0 <= low < high <= 1:
            raise ValueError(f"low={low} and high={high} are no interval of t; choose 0 <= low < high <= 1.")
        self.low = low
        self.high = high

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            inside = self.low <= one_time(t) <= self.high
            return inner(x_t, t) if inside else contrast.ask_wanted(x_t, t)

        return denoise
