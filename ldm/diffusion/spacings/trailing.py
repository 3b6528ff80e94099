"""Even strides down from pure noise."""

from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.spacings.base import Spacing, falling, refuse_more_steps
from ldm.diffusion.spacings.linspace import Linspace


class Trailing(Spacing):
    """Even strides down from t_max; the last one ends at 0 (Lin et al. 2023, arXiv 2305.08891, table 2).

    On a path of T steps: k = round(T i / N) - 1 for i = N..1, at t = (k+1)/T. In continuous time t_max (i/N)^rho,
    with the path's own rho; where that would end below t_min it is Linspace.
    """

    def times(self, num_steps: int, path: Path) -> Tensor:
        refuse_more_steps(num_steps, path)
        down = falling(num_steps)
        if path.num_steps is not None:
            return (down * path.num_steps / num_steps).round() / path.num_steps
        times = path.t_max * (down / num_steps) ** path.rho
        return times if times[-1] >= path.t_min else Linspace().times(num_steps, path)
