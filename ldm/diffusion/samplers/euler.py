"""Euler's method on the probability-flow ODE."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.spacing import Spacing


class Euler(Sampler):
    """x_s = x_t + (s - t) (alpha' x0 + sigma' eps), the ODE of Song et al. 2021 (arXiv 2011.13456, eq. 13).

    The last step, into t = 0, returns x0 on every path; on RectifiedFlow Euler's own step does so by itself.

    Args:
        num_steps: Number of calls of the network.
        spacing: Times visited: "trailing" starts at pure noise, "leading" short of it, "linspace" has both ends.
    """

    def __init__(self, num_steps: int = 50, spacing: Spacing = "trailing") -> None:
        super().__init__(num_steps, spacing)

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        for index, (t, s) in enumerate(self.intervals(path)):
            x0 = ask(denoise, x, t).x0
            velocity = path.alpha_dot(t) * x0 + path.sigma_dot(t) * path.implied_eps(x, x0, t)
            x = x0 if s == 0 else x + (s - t) * velocity
            yield Step(index, self.num_steps, float(s), x, x0)
