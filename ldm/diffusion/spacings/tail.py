"""The last part of another spacing."""

from torch import Tensor

from ldm.diffusion.paths import Path
from ldm.diffusion.spacings.base import Spacing
from ldm.diffusion.spacings.trailing import Trailing


class Tail(Spacing):
    """Only the times of another spacing that are not over a start: to go on from half-noised data.

    So it has fewer times than it is asked for (image-to-image: Meng et al. 2021, arXiv 2108.01073, algorithm 1).

    Args:
        spacing: The whole spacing; left out, Trailing.
        start: The latest time to visit, over 0 and at most 1; at 1 nothing is cut.
    """

    def __init__(self, spacing: Spacing | None = None, start: float = 1.0) -> None:
        if not 0 < start <= 1:
            raise ValueError(f"start={start} is no time with noise; choose over 0 and at most 1 (1 cuts nothing).")
        self.spacing = Trailing() if spacing is None else spacing
        self.start = start

    def times(self, num_steps: int, path: Path) -> Tensor:
        times = self.spacing.times(num_steps, path)
        kept = times[times <= self.start]
        if len(kept) == 0:
            raise ValueError(
                f"start={self.start} lies below all of {num_steps} times, which end at {float(times[-1]):.4g}; "
                "choose more steps, or a start at least that high."
            )
        return kept
