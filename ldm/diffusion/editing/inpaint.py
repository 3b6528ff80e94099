"""Inpainting with a model that knows nothing of masks."""

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Noise


class Inpaint:
    """A Denoise that holds the known part of an image where it belongs: the replacement method.

    At each time the known part of the state is replaced by the known data, noised to that time, and that of the
    estimate by the data themselves (Song et al. 2021, arXiv 2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv
    2201.09865, eq. 8). A sampler has to obey the moved state (`Sampler.obeys_moves`). Replacement alone does not
    draw from the model's conditional law: the painted part looks at known parts of other noise each time. The sampler
    RePaint comes closer.

    Args:
        denoise: the model, with its guidance.
        path: its path.
        known: data (B, C, ...); what they are under the mask plays no part.
        mask: 1 where the model is to paint, 0 where `known` stays; values between blend. Broadcasts against `known`.
        noise: source of the noise of the known part, drawn afresh at each call; one that always returns the same
            tensor moves the known part along a straight line.

    Raises:
        ValueError: the mask does not fit the data or leaves [0, 1].
    """

    def __init__(self, denoise: Denoise, path: NoisePath, known: Tensor, mask: Tensor, noise: Noise) -> None:
        try:
            mask.expand_as(known)
        except RuntimeError:
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} does not lie over data of shape {tuple(known.shape)}; give it "
                "the same height and width, and 1 or all of the channels."
            ) from None
        if not ((mask >= 0) & (mask <= 1)).all():
            raise ValueError("the mask has values outside [0, 1]; choose 1 where to paint and 0 where to keep.")
        self.denoise = denoise
        self.path = path
        self.mask = mask.to(known)
        self.known = torch.where(self.mask < 1, known, 0)  # under the mask there may be anything, even nan
        self.noise = noise

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        there = self.path.corrupt(self.known, self.noise(), t)
        answer = self.denoise(self.blend(x_t, there), t)
        state = x_t if answer.x_t is None else answer.x_t
        return Denoised(self.blend(answer.x0, self.known), answer.variance, self.blend(state, there))

    def blend(self, painted: Tensor, known: Tensor) -> Tensor:
        """`painted` under the mask and `known` beside it, exactly where the mask is 0 or 1."""
        return torch.lerp(known, painted, self.mask)
