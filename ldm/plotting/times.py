"""The times at which a picture shows a path."""

import torch
from torch import Tensor

from ldm.diffusion.paths import Path


def even_times(path: Path, count: int) -> Tensor:
    """Up to `count` times that a network is trained at, from the least to the most noise: float64, each once.

    They are even in t ** (1 / rho), as the path has it, so that most are where most happens.
    """
    low, high = path.t_min ** (1 / path.rho), path.t_max ** (1 / path.rho)
    with torch.no_grad():
        t = path.snap(torch.linspace(low, high, count, dtype=torch.float64) ** path.rho)
    return torch.tensor(sorted(set(t.tolist())), dtype=torch.float64)
