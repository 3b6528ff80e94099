"""Evenly spread times within each batch."""

import torch
from torch import Tensor, nn

from ldm.diffusion.paths import Path
from ldm.diffusion.timesteps.base import Timesteps
from ldm.diffusion.timesteps.uniform import UniformTimesteps


class Stratified(Timesteps, nn.Module):
    """A law whose batches hold one time from each of B equally likely parts, which lowers the variance of the loss.

    The uniform numbers of a whole batch are (u0 + i / B) mod 1 (Kingma et al. 2021, arXiv 2107.00630, appendix I.1).

    Args:
        timesteps: The law that is spread like this; left out, UniformTimesteps.
    """

    def __init__(self, timesteps: Timesteps | None = None) -> None:
        super().__init__()
        self.timesteps = UniformTimesteps() if timesteps is None else timesteps
        self.corrected = self.timesteps.corrected
        self.learns = self.timesteps.learns

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        return self.timesteps.quantile(u, path)

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        return self.timesteps.cdf(t, path)

    def spread(self, u: Tensor) -> Tensor:
        return (u[:1] + torch.arange(len(u), dtype=u.dtype, device=u.device) / len(u)) % 1

    def update(self, t: Tensor, losses: Tensor, path: Path) -> None:
        self.timesteps.update(t, losses, path)

    def check(self, path: Path) -> None:
        self.timesteps.check(path)
