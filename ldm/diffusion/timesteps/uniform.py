"""All times alike."""

from torch import Tensor

from ldm.diffusion.timesteps.base import Timesteps


class UniformTimesteps(Timesteps):
    """Every time equally often."""

    def __call__(self, u: Tensor) -> Tensor:
        return u
