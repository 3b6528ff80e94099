"""Numbers to a vector, as a network is told of sizes, places, scores and levels."""

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.nn.embeddings import sinusoids


class NumberEmbedding(nn.Module):
    """Sinusoids of each of `count` numbers side by side, then a two-layer perceptron: (B, count) -> (B, width).

    SDXL tells its network of sizes and crops so (arXiv:2307.01952, section 2.2). The fastest of the sinusoids turns
    once in 2 pi, the slowest once in 63,000 units: numbers of pixels suit as they are.

    Args:
        count: how many numbers.
        width: width of the vector.
        num_frequencies: sinusoids of each number, cosines and sines together.
    """

    def __init__(self, count: int, width: int, num_frequencies: int = 256) -> None:
        super().__init__()
        if num_frequencies < 2 or num_frequencies % 2:
            raise ValueError(f"num_frequencies is {num_frequencies}: it must be even, such as 256.")
        self.num_frequencies = num_frequencies
        self.enter = nn.Linear(count * num_frequencies, width)
        self.leave = nn.Linear(width, width)
        for linear in (self.enter, self.leave):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, values: Tensor) -> Tensor:
        waves = sinusoids(values.flatten(), self.num_frequencies)  #              (B count, F)
        h = waves.reshape(len(values), -1).to(self.enter.weight.dtype)  #         (B, count F)
        vector: Tensor = self.leave(F.silu(self.enter(h)))  #                     (B, width)
        return vector
