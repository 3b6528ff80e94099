"""The seam of every path that spoils images without noise."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.diffusion.paths.base import Path

TOLERANCE = 1e-6  # times up to this far beyond a grid point count as on it: float32 may round them there


class Degradation(Path):
    """x_t = D(x0, t): a fixed operation on images, the identity at t = 0 (Bansal et al. 2022, arXiv 2208.09392, 3.1).

    Time has num_steps steps, step k = 0..T-1 at t = (k+1)/T. For generation (section 5 of the paper) what is left at
    t = 1 is one value per channel, whose distribution over the data is taken as normal, and every pixel gets a trace of
    noise, which breaks the symmetry of an image that is constant.

    Args:
        num_steps: Number of steps T of the path; a sampler takes at most as many.
        start_mean: Mean of what is left at t = 1, for all channels or for each.
        start_std: Its standard deviation from image to image, for all channels or for each.
        start_noise: Standard deviation of the trace of noise on it.
    """

    t_max = 1.0
    num_steps: int

    def __init__(
        self,
        num_steps: int,
        start_mean: float | Sequence[float],
        start_std: float | Sequence[float],
        start_noise: float,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} leaves the degradation empty; choose at least 1 (40 is usual).")
        if min(torch.tensor(start_std).reshape(-1).tolist()) < 0 or start_noise < 0:
            raise ValueError(
                f"start_std={start_std} and start_noise={start_noise} are standard deviations: choose 0 or more."
            )
        self.num_steps = num_steps
        self.t_min = 1 / num_steps
        self.start_mean = start_mean
        self.start_std = start_std
        self.start_noise = start_noise

    @abstractmethod
    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        """D(x0, t) for images x0 (B, C, H, W) and t (B,) on their device and in their dtype, in [0, 1]."""

    def corrupt(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """D(x0, t), whatever eps is."""
        return self.at(x0, t)

    def at(self, x0: Tensor, t: Tensor) -> Tensor:
        """D(x0, t) for t (B,), or 0-dim and then perhaps elsewhere; shaped like x0, and x0 itself at t = 0."""
        if x0.dim() != 4:
            raise ValueError(
                f"{type(self).__name__} spoils images (B, C, H, W), and this has the shape {tuple(x0.shape)}: use a "
                "path that adds noise, for example Cosine."
            )
        return self.degrade(x0, t.to(x0.device, x0.dtype).expand(x0.shape[0]))

    def start(self, eps: Tensor) -> Tensor:
        pixels = eps.shape[2] * eps.shape[3]
        average = eps.mean((2, 3), keepdim=True)  # normal with variance 1 / pixels, and independent of eps - average
        mean, std = (torch.as_tensor(x).to(eps).reshape(-1, 1, 1) for x in (self.start_mean, self.start_std))
        level: Tensor = mean + std * pixels**0.5 * average
        return level + self.start_noise * (eps - average)

    def snap(self, t: Tensor) -> Tensor:
        """Up to the grid: t in (k/T, (k+1)/T] gives (k+1)/T, so uniform t gives uniform steps k."""
        return self.step(t).clamp(min=1) / self.num_steps

    def step(self, t: Tensor) -> Tensor:
        """How many steps have been begun at t: whole numbers 0..T, shaped like t and in its dtype."""
        begun: Tensor = ((t - TOLERANCE) * self.num_steps).ceil()
        return begun.clamp(0, self.num_steps)

    def from_uniform(self, u: Tensor) -> Tensor:
        return u  # `snap` goes up to the grid, so every step has the same share of [0, 1)
