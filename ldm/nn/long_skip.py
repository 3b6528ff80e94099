"""A skip connection between far layers of a transformer."""

import torch
from torch import Tensor, nn


class LongSkip(nn.Module):
    """Two sequences (B, N, D) joined along the channels and brought back to D by a linear layer.

    U-ViT (Bao et al. 2022, arXiv:2209.12152, section 3.1). It starts as the first of the two alone, so that a network
    starts as it would without skips.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(width, 2 * width))
            self.linear.bias.zero_()

    def forward(self, h: Tensor, early: Tensor) -> Tensor:
        return self.linear(torch.cat([h, early], dim=-1)).to(h.dtype)  # autocast would go on in low precision
