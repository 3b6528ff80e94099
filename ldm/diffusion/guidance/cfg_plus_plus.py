"""CFG++: guidance that keeps the noise of the other model."""

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.guidance.base import Contrast, Guidance
from ldm.diffusion.shapes import per_sample


class CFGPlusPlus(Guidance):
    """In place of ClassifierFree where images must stay invertible; scale 0 to 1.

    The guided x0 lies between other and wanted, and the noise put back on it is that of `other`: Chung et al. 2024,
    arXiv 2406.08070, algorithm 2. The state moves to x_t + alpha (guided x0 - other x0), where the guided x0 implies
    the eps of `other`; so any sampler that obeys moves can go on. What rules before it add to x0 is added here too. One
    step of DDIM from t to s is ClassifierFree's at scale alpha_s / (alpha_s - alpha_t sigma_s / sigma_t).

    Args:
        scale: Where between other (0) and wanted (1) x0 lies.
    """

    needs_noise = True
    needs_other = True
    moves = True

    def __init__(self, scale: float = 0.6) -> None:
        if not 0 <= scale <= 1:
            raise ValueError(f"scale={scale} is not between other (0) and wanted (1); for more, use ClassifierFree.")
        self.scale = scale

    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            wanted, other = contrast.ask_both(x_t, t)
            before = inner(x_t, t)
            x0 = before.x0 + (self.scale - 1) * (wanted.x0 - other.x0)
            moved = x_t + per_sample(contrast.path.alpha(t), x_t) * (x0 - other.x0)
            return Denoised(x0, before.variance, moved)

        return denoise
