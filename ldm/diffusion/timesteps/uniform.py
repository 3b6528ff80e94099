"""All times alike."""

from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.timesteps.base import Timesteps


class UniformTimesteps(Timesteps):
    """Every time between the path's t_min and t_max equally often."""

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        return path.from_uniform(u)

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        low, span = (0.0, 1.0) if path.num_steps is not None else (path.t_min, path.t_max - path.t_min)
        return ((t - low) / span).clamp(0, 1)
