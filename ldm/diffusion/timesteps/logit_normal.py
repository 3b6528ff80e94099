"""More training in the middle of the path."""

import math

from torch import Tensor, erfinv, sigmoid

from ldm.diffusion.timesteps.base import Timesteps


class LogitNormal(Timesteps):
    """t = sigmoid(mean + std z), z standard normal (Esser et al. 2024, arXiv 2403.03206, section 3.1).

    Args:
        mean: Mean of logit(t); over 0 trains noisier times more often.
        std: Standard deviation of logit(t), over 0; smaller gathers the times closer together.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        if not math.isfinite(mean):
            raise ValueError(f"mean={mean} puts every time at one end; choose a finite number (0 is usual).")
        if not 0 < std < math.inf:
            raise ValueError(f"std={std} is no spread of times; choose a finite number over 0 (1 is usual).")
        self.mean = mean
        self.std = std

    def __call__(self, u: Tensor) -> Tensor:
        z = math.sqrt(2) * erfinv(2 * u - 1)  # u = 0 gives -inf, hence t = 0, which the path snaps
        return sigmoid(self.mean + self.std * z)
