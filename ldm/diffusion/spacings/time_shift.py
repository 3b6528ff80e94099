"""Another spacing, with more of its times where there is much noise."""

import math

from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.spacings.base import Spacing
from ldm.diffusion.spacings.trailing import Trailing


class TimeShift(Spacing):
    """Times of another spacing moved towards noise: for flow models sampled at a higher resolution (SD3's shift).

    t' = s t / (1 + (s - 1) t), t in units of t_max (Esser et al. 2024, arXiv 2403.03206, eq. 23), on any path, off the
    grid of a discrete one. The network hears the time it is asked at. To train with a shift too, see the path Shifted.

    Args:
        spacing: The spacing that is moved; left out, Trailing.
        shift: s, over 0; 1 changes nothing, 3 is Stable Diffusion 3's at 1024 pixels.
    """

    def __init__(self, spacing: Spacing | None = None, shift: float = 3.0) -> None:
        if not 0 < shift < math.inf:
            raise ValueError(f"shift={shift} moves no time; choose a number over 0 (1 changes nothing, 3 is usual).")
        self.spacing = Trailing() if spacing is None else spacing
        self.shift = shift

    def times(self, num_steps: int, path: Path) -> Tensor:
        u = self.spacing.times(num_steps, path) / path.t_max
        times: Tensor = path.t_max * self.shift * u / (1 + (self.shift - 1) * u)
        return times[times >= path.t_min]  # a shift under 1 may go below, where no network can be asked
