"""A perceptron gated by a GELU."""

from torch import Tensor, nn
from torch.nn.functional import gelu


class GEGLU(nn.Module):
    """(..., D) -> (..., D) by W2(V x * gelu(W1 x)). Shazeer 2020 (arXiv:2002.05202).

    Args:
        width: D.
        hidden: width of the gated product; by default 4 D, as in latent diffusion.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.enter = nn.Linear(width, 2 * hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.enter(x).chunk(2, dim=-1)
        return self.leave(value * gelu(gate))
