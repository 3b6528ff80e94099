"""Euler's method on the probability-flow ODE."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, walk
from ldm.diffusion.shapes import affine
from ldm.diffusion.spacings import Spacing


class Euler(Sampler):
    """Deterministic, first order in t; the plain choice for flow matching (there it is DDIM).

    x_s = x_t + (s - t) (alpha' x0 + sigma' eps), the ODE of Song et al. 2021 (arXiv 2011.13456, eq. 13). The last
    step, into t = 0, returns x0 on every path; on RectifiedFlow Euler's own step does so by itself.

    Args:
        num_steps: Number of calls of the network.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(self, num_steps: int = 50, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        return walk(self.intervals(path), denoise, x, lambda x, x0, t, s: move(x, x0, t, s.t - t.t))


def move(x: Tensor, x0: Tensor, t: Level, dt: float) -> Tensor:
    """x + dt * velocity(x, x0, t)."""
    slope = t.sigma_dot / t.sigma
    return affine(1 + dt * slope, x, dt * (t.alpha_dot - slope * t.alpha), x0)


def velocity(x: Tensor, x0: Tensor, t: Level) -> Tensor:
    """dx_t/dt = alpha' x0 + sigma' eps of the probability-flow ODE, eps being what makes x (B, ...) of x0."""
    slope = t.sigma_dot / t.sigma
    return affine(slope, x, t.alpha_dot - slope * t.alpha, x0)
