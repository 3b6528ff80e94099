"""The seam of every sampler."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.spacing import Spacing, check_spacing, time_grid

# Returns the next standard normal tensor, of the shape, dtype and device of x.
Noise = Callable[[], Tensor]


@dataclass(frozen=True)
class Step:
    """Where a sampler stands after step `index` (from 0) of `num_steps`: at time t, holding x.

    x0 is the estimate of the data that the step used. The last step has t = 0, and its x is the sample.
    """

    index: int
    num_steps: int
    t: float
    x: Tensor
    x0: Tensor


class Sampler(ABC):
    """Walks a batch from noise to data. It asks `denoise` for x0 and draws no random number by itself.

    The coefficients are 0-dim float64 tensors, so x keeps its dtype.
    """

    def __init__(self, num_steps: int, spacing: Spacing) -> None:
        check_spacing(spacing, num_steps)
        self.num_steps = num_steps
        self.spacing = spacing

    @abstractmethod
    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        """Yield each step from x (B, ...) at the path's noisy end, eps * path.prior_std, to data at t = 0.

        `noise` is called only when randomness is needed: never by a deterministic sampler.
        """

    def sample(self, denoise: Denoise, path: NoisePath, eps: Tensor, noise: Noise) -> Tensor:
        """The last step's x, started from standard normal eps (B, ...)."""
        x = eps * path.prior_std
        for step in self.steps(denoise, path, x, noise):
            x = step.x
        return x

    def intervals(self, path: NoisePath) -> list[tuple[Tensor, Tensor]]:
        """(t, s) of each step, from t down to s, as 0-dim float64 tensors on the CPU; the last s is 0."""
        return list(pairwise(time_grid(self.spacing, self.num_steps, path).unbind()))


def ask(denoise: Denoise, x: Tensor, t: Tensor) -> Denoised:
    """`denoise` at one time for the whole batch: 0-dim t becomes (B,) beside x, float32 (float64 where x is)."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return denoise(x, torch.full(x.shape[:1], float(t), dtype=dtype, device=x.device))
