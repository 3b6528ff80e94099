"""Times drawn by how large their losses have been."""

import torch
from torch import Tensor, nn

from ldm.diffusion.paths import Path
from ldm.diffusion.timesteps.base import Timesteps
from ldm.diffusion.timesteps.uniform import UniformTimesteps


class LossAware(Timesteps, nn.Module):
    """p(t) ~ sqrt(E[loss^2 | t]), learned while training (Nichol and Dhariwal 2021, arXiv 2102.09672, section 3.3).

    Losses are divided by the density, so what is trained stays the same and only its variance falls. Times are uniform
    until each of `bins` equal parts of [0, 1] has been seen `history` times; from then on the mean square of each is
    a running one over about as many losses. Its state belongs to the checkpoints.

    Args:
        bins: Equal parts of the training times, each with one probability; a discrete path uses no more than its steps.
        history: Losses of each part behind its estimate; 10 is the paper's.
        uniform: Share of the draws that stay uniform, over 0 and at most 1; 0.001 is the paper's.
    """

    corrected = True
    learns = True
    counts: Tensor  # (bins,) losses seen
    squares: Tensor  # (bins,) running mean of their squares

    def __init__(self, bins: int = 100, history: int = 10, uniform: float = 0.001) -> None:
        super().__init__()
        if bins < 2 or history < 1:
            raise ValueError(f"bins={bins} and history={history} learn nothing; choose at least 2 and at least 1.")
        if not 0 < uniform <= 1:
            raise ValueError(f"uniform={uniform} would leave times out for good; choose one over 0, at most 1.")
        self.bins = bins
        self.history = history
        self.uniform = uniform
        self.register_buffer("counts", torch.zeros(bins, dtype=torch.long))
        self.register_buffer("squares", torch.zeros(bins))

    def quantile(self, u: Tensor, path: Path) -> Tensor:
        bounds = self._bounds(u, path)
        part = (torch.searchsorted(bounds, u.contiguous(), right=True) - 1).clamp(0, len(bounds) - 2)
        place = part + (u - bounds[part]) / (bounds[part + 1] - bounds[part])
        return path.from_uniform((place / (len(bounds) - 1)).clamp(0, 1))

    def cdf(self, t: Tensor, path: Path) -> Tensor:
        bounds = self._bounds(t, path)
        place = UniformTimesteps().cdf(t, path) * (len(bounds) - 1)
        part = place.long().clamp(0, len(bounds) - 2)
        return bounds[part] + (place - part) * (bounds[part + 1] - bounds[part])

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor, path: Path) -> None:
        parts = self._parts(path)
        raw = (losses * self.density(t, path)).double()  # the training has divided by it
        place = UniformTimesteps().cdf(t, path).double() * parts
        part = (place - 1e-4).ceil().long().clamp(1, parts) - 1  # a step of a discrete path ends its part
        order = raw.argsort()  # sorted, so that the order within the batch does not matter to the last bit
        order = order[part[order].argsort(stable=True)]
        order = order[raw[order].isfinite()]
        here = (part[order] == torch.arange(parts, device=t.device)[:, None]).double()  # (parts, B)
        found, counts = (here * raw[order].square()).sum(1), here.sum(1)
        self.counts[:parts] += counts.long()
        share = counts / self.counts[:parts].clamp(1, self.history).maximum(counts)
        mean = found / counts.clamp(min=1)
        self.squares[:parts] += (share * (mean - self.squares[:parts])).to(self.squares.dtype)

    def _parts(self, path: Path) -> int:
        """Parts in use: each has a step of a discrete path at least."""
        return self.bins if path.num_steps is None else min(self.bins, path.num_steps)

    def _bounds(self, like: Tensor, path: Path) -> Tensor:
        """(parts + 1,) probabilities of a time below each bound between two parts, in the dtype of `like`."""
        parts = self._parts(path)
        roots = self.squares[:parts].double().sqrt()
        ready = (self.counts[:parts] >= self.history).all() & (roots.sum() > 0)
        learned = torch.where(ready, roots / roots.sum().clamp(min=1e-300), 1 / parts)
        shares = self.uniform / parts + (1 - self.uniform) * learned
        zero, one = shares.new_zeros(1), shares.new_ones(1)
        return torch.cat([zero, shares.cumsum(0)[:-1], one]).to(like.device, like.dtype)
