"""DPM-Solver: exponential Runge-Kutta steps on the noise."""

from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step
from ldm.diffusion.samplers.exponential import NoiseForm, check_order
from ldm.diffusion.samplers.single_step import single_steps
from ldm.diffusion.spacings import Spacing


class DPMSolver(Sampler):
    """Deterministic, as many calls a step as its order; sharp without guidance, else prefer DPMSolverPP.

    Lu et al. 2022, arXiv 2206.00927: DPM-Solver-1 is eq. 3.7 (and DDIM), -2 and -3 are algorithms 1 and 2 with
    r = 1/2 and 1/3, 2/3. The step into t = 0, which returns x0, and one from alpha = 0, which is first order, make
    one call.

    Args:
        num_steps: Steps of the grid, each of `order` calls of the network.
        order: 1 to 3.
        spacing: Times visited; left out, Trailing.
    """

    obeys_moves = False  # a moved state says nothing of the points inside a step

    def __init__(self, num_steps: int = 20, order: int = 2, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)
        check_order("DPMSolver", order, 3)
        self.order = order

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        return single_steps(NoiseForm(), self.order, denoise, path, x, self.intervals(path))
