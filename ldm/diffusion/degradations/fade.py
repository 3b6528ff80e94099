"""A hole that grows from the centre until nothing is left."""

import math

import torch
from torch import Tensor

from ldm.diffusion.degradations.base import Degradation


class Fade(Degradation):
    """Masked by Gaussian holes that widen around the centre (arXiv 2208.09392, section 4.2, "inpainting").

    x_t = m_k x0 + (1 - m_k) color with m_k = prod_{i<=k} (1 - exp(-r^2 / (2 beta_i))), r the distance from the centre.
    As in the paper the masks of all steps so far are multiplied; here sqrt(beta_i) = max_width i / T, r is counted in
    half diagonals so that a path suits any image size, and at t = 1 the mask is 0. A time between two steps counts as
    the later one. Nothing of the image survives, so all the variety of what is generated comes from start_noise.

    Args:
        num_steps: Number of steps T of the path; a sampler takes at most as many.
        max_width: Width of the last hole, in half diagonals of the image.
        color: What the image fades to.
        start_noise: Standard deviation of the noise that generation adds to its constant first image.
    """

    def __init__(
        self, num_steps: int = 40, max_width: float = 1.0, color: float = 0.0, start_noise: float = 0.002
    ) -> None:
        super().__init__(num_steps, start_mean=color, start_std=0.0, start_noise=start_noise)
        if not 0 < max_width < math.inf:
            raise ValueError(f"max_width={max_width} digs no hole; choose a finite number over 0 (1 is usual).")
        self.max_width = max_width
        self.color = color

    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        height, width = x0.shape[2:]
        masks = self.masks(height, width).to(x0)[self.step(t).long()]  # (B, H, W)
        return x0 + (1 - masks)[:, None] * (self.color - x0)

    def masks(self, height: int, width: int) -> Tensor:
        """The mask after 0, 1, ..., T steps: (T+1, H, W) in float64."""
        rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1 for n in (height, width))
        r2 = (rows[:, None].square() + columns.square()) / 2  # 1 in the corners
        beta = (self.max_width * torch.arange(1, self.num_steps + 1) / self.num_steps).double().square()
        holes = -(-r2 / (2 * beta[:, None, None])).expm1()
        holes[-1] = 0
        return torch.cat([torch.ones(1, height, width, dtype=torch.float64), holes.cumprod(0)])
