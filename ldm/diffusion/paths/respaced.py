"""A discrete path of fewer steps, made of some steps of another."""

import torch
from torch import Tensor

from ldm.diffusion.paths.betas import Linear
from ldm.diffusion.paths.discrete import DiscretePath
from ldm.diffusion.paths.grid import piece, place, to_device


class Respaced(DiscretePath):
    """Keeps alpha_bar at N of the T steps of a discrete path, both ends and evenly between, as openai's code does.

    The betas are those of the longer strides (Nichol and Dhariwal 2021, arXiv 2102.09672, section 4, eq. 19). A network
    hears the inner path's integers, so it may come from a training on all of them.

    Args:
        path: The path with all its steps; left out, Linear.
        num_steps: Number N of steps to keep, at most T; step i is the inner step round((T-1) i / (N-1)).
    """

    def __init__(self, path: DiscretePath | None = None, num_steps: int = 500) -> None:
        self.path = Linear() if path is None else path
        total = self.path.num_steps
        if not 1 <= num_steps <= total:
            raise ValueError(f"num_steps={num_steps} cannot be kept of {total} steps; choose from 1 to {total}.")
        share = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1) if num_steps > 1 else torch.ones(1)
        kept = (share * (total - 1)).round().long()
        logs = self.path.log_alpha_bars[torch.cat([torch.zeros(1).long(), kept + 1])]
        super().__init__(-logs.diff().expm1())
        self.sigma_data = self.path.sigma_data
        # what is heard at t = 0, 1/N, ..., 1
        self._heard = self.path.noise_condition(torch.cat([torch.zeros(1), kept + 1]).double() / total)

    def noise_condition(self, t: Tensor) -> Tensor:
        """The inner path's integer step at a grid point, straight between them."""
        table, at = to_device(self._heard, t), place(t, self.num_steps)
        found = piece(at, self.num_steps)
        return (table[found] + (at - found) * (table[found + 1] - table[found])).to(t.dtype)
