"""A gated perceptron."""

from torch import Tensor, nn
from torch.nn.functional import silu


class SwiGLU(nn.Module):
    """(..., D) -> (..., D) by W2(silu(W1 x) * V x). Shazeer 2020 (arXiv:2002.05202).

    Args:
        width: D.
        hidden: width of the gated product; 2/3 of a plain perceptron's for as many weights.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 2 * hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.enter(x).chunk(2, dim=-1)
        return self.leave(silu(gate) * value)
