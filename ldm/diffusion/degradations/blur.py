"""Gaussian blur that grows until only the mean is left."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.diffusion.degradations.base import Degradation


class Blur(Degradation):
    """Blurred again and again by Gaussian kernels that grow exponentially (arXiv 2208.09392, sections 4.1 and 5.2).

    Variances of kernels add up, so kernels of std e^(growth k/T) for the steps k = 0..T-1 blur by

        std(t)^2 = max_std^2 (e^(2 growth t) - 1) / (e^(2 growth) - 1),

    and at t = 1 the mean of each channel is all that is left, as in the paper's generation. The blur is exact: images
    go on mirrored beyond their borders, where the cosines of the DCT-II are the eigenvectors of every Gaussian kernel
    (Rissanen et al. 2022, arXiv 2206.13397, section 3). The paper cuts its kernels off and continues images
    periodically.

    Args:
        num_steps: Number of steps T of the path; a sampler takes at most as many.
        max_std: Standard deviation of the whole blur shortly before t = 1, in image sides; 1 leaves a hundredth of the
            widest wave.
        growth: Logarithm of how much wider the last kernel is than the first; the paper's is 300 steps of 0.01.
        start_mean: Mean over the data of the images' means, for all channels or for each.
        start_std: Standard deviation over the data of the images' means, for all channels or for each.
        start_noise: Standard deviation of the noise that generation adds to its constant first image.
    """

    def __init__(
        self,
        num_steps: int = 40,
        max_std: float = 1.0,
        growth: float = 3.0,
        start_mean: float | Sequence[float] = 0.0,
        start_std: float | Sequence[float] = 1.0,
        start_noise: float = 0.002,
    ) -> None:
        super().__init__(num_steps, start_mean, start_std, start_noise)
        if not (0 < max_std < math.inf and 0 < growth < math.inf):
            raise ValueError(
                f"max_std={max_std} and growth={growth} must be finite numbers over 0 (1 and 3 are usual)."
            )
        self.max_std = max_std
        self.growth = growth

    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        height, width = x0.shape[2:]
        x = x0 + self.change(t, height)[:, None] @ x0
        return x + x @ self.change(t, width)[:, None]

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of the blur in image sides, shaped like t."""
        return self.max_std * ((2 * self.growth * t).expm1() / math.expm1(2 * self.growth)).sqrt()

    def change(self, t: Tensor, side: int) -> Tensor:
        """The symmetric matrix (B, side, side) of (blurred - x) along an axis: 0 at t = 0, for t (B,)."""
        basis = cosines(side).to(t)
        wave = torch.arange(side).to(t)  # half waves per side
        exponent = -(self.std(t)[:, None] * math.pi * wave).square() / 2  # (B, side)
        lost = torch.where((t[:, None] >= 1) & (wave > 0), -1, exponent.expm1())
        return basis.T @ (lost[:, :, None] * basis)


def cosines(side: int) -> Tensor:
    """The orthonormal DCT-II (side, side) in float64: row k holds the cosine of k half waves."""
    place = torch.arange(side, dtype=torch.float64)
    rows = torch.cos(math.pi / side * place[:, None] * (place + 0.5)) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows
