"""Image-to-image: sampling that starts from a noised image in place of noise."""

import copy

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Sampler
from ldm.diffusion.spacings import Tail


def begin_at(sampler: Sampler, strength: float) -> Sampler:
    """The same sampler, which walks only the times up to t = strength: SDEdit (Meng et al. 2022, arXiv 2108.01073).

    Its `steps` are to be given `noised_start`. With another noise, it is a variation of the image.

    Args:
        sampler: it is left as it is.
        strength: over 0, which changes nothing, up to 1, which keeps nothing but what is left of data at t_max.

    Raises:
        ValueError: strength is no time that an image can be noised to.
    """
    if not 0 < strength <= 1:
        raise ValueError(
            f"strength={strength} is no time to start at; choose over 0 (the image) to 1 (plain sampling)."
        )
    shorter = copy.copy(sampler)
    shorter.spacing = Tail(sampler.spacing, strength)
    return shorter


def noised_start(sampler: Sampler, path: NoisePath, x0: Tensor, eps: Tensor) -> Tensor:
    """x0 (B, ...) noised with eps to the first time that the sampler visits: what its `steps` start from."""
    return path.corrupt(x0, eps, sampler.spacing.times(sampler.num_steps, path)[0])
