"""Ever coarser pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ldm.diffusion.degradations.base import Degradation


class Pixelation(Degradation):
    """Averages over blocks of 2^k x 2^k pixels, each block filled with its average (arXiv 2208.09392, section 4.3).

    The paper's "super-resolution": k steps of halving the resolution, then back to full size. It has as many steps as
    there are halvings, and a time between two steps counts as the later one.

    Args:
        num_steps: Number of halvings T: log2 of the image side leaves one value per channel, which generation needs.
        start_mean: Mean over the data of the images' means, for all channels or for each.
        start_std: Standard deviation over the data of the images' means, for all channels or for each.
        start_noise: Standard deviation of the noise that generation adds to its constant first image.
    """

    def __init__(
        self,
        num_steps: int = 4,
        start_mean: float | Sequence[float] = 0.0,
        start_std: float | Sequence[float] = 1.0,
        start_noise: float = 0.002,
    ) -> None:
        super().__init__(num_steps, start_mean, start_std, start_noise)

    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        coarsest = 2**self.num_steps
        height, width = x0.shape[2:]
        if height % coarsest or width % coarsest:
            raise ValueError(
                f"Pixelation(num_steps={self.num_steps}) needs image sides that are multiples of {coarsest}, got "
                f"{height}x{width}: choose fewer steps, or resize the images."
            )
        steps = self.step(t)[:, None, None, None]
        x, coarse = x0, x0
        for k in range(1, self.num_steps + 1):
            coarse = avg_pool2d(coarse, 2)
            x = torch.where(steps == k, interpolate(coarse, size=(height, width), mode="nearest"), x)
        return x
