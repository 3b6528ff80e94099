"""An adaptive Runge-Kutta method on the probability-flow ODE."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torchdiffeq import odeint

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, level_at
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.spacings import Spacing

MOST_SUB_STEPS = 1000  # between two reports


class DormandPrince(Sampler):
    """Deterministic, as many calls as its tolerances want: the exact ODE, to compare with.

    The method "dopri5" of torchdiffeq on the ODE of Song et al. 2021 (arXiv 2011.13456, section 4.3). It is written in
    the angle a = atan(sigma / alpha) and z = x / hypot(alpha, sigma), where it reads dz/da = (cos(a) z - x0) / sin(a):
    no path has a kink or an infinite slope there. From the last time over 0 it steps to x0. Sub-steps are chosen
    for the whole batch, by its worst image: an image of another batch agrees to the tolerance.

    Args:
        num_steps: Number of times at which it reports; its own sub-steps lie between them.
        rtol: Tolerance relative to z.
        atol: Absolute tolerance of z, which has about unit variance at the noisy end.
        spacing: Times at which it reports; left out, Trailing.
    """

    obeys_moves = False  # a step is a mean of several slopes, and a state that moves in between has none

    def __init__(
        self, num_steps: int = 10, rtol: float = 1e-5, atol: float = 1e-5, spacing: Spacing | None = None
    ) -> None:
        super().__init__(num_steps, spacing)
        if not (0 < rtol < 1 and 0 < atol < 1):
            raise ValueError(f"rtol={rtol} and atol={atol} are no tolerances; choose between 0 and 1 (1e-5 is usual).")
        self.rtol = rtol
        self.atol = atol

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            x0 = ask(denoise, x, t.t).x0
            x = x0 if s.t == 0 else self.move(denoise, path, x, t, s)
            yield Step(index, len(intervals), s.t, x, x0)

    def move(self, denoise: Denoise, path: NoisePath, x: Tensor, t: Level, s: Level) -> Tensor:
        """x (B, ...) at t to x at s < t, s > 0."""
        start, end = math.atan2(t.sigma, t.alpha), math.atan2(s.sigma, s.alpha)

        def slope(angle: Tensor, z: Tensor) -> Tensor:
            here = level_at(path, -math.log(math.tan(float(angle))))
            x0 = ask(denoise, (math.hypot(here.alpha, here.sigma) * z).to(x.dtype), here.t).x0
            return (math.cos(float(angle)) * z - x0) / math.sin(float(angle))

        angles = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        options = {
            "norm": worst_of_batch,
            "step_t": angles[1:],  # else a sub-step may pass the end
            "first_step": (start - end) * (1 + 1e-9),
            "min_step": (start - end) / MOST_SUB_STEPS,  # taken as it is: a network's own rounding may allow no less
        }
        z = x.double() / math.hypot(t.alpha, t.sigma)  # torchdiffeq rounds the angle to the dtype of z
        way: Tensor = odeint(slope, z, angles, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)
        return (math.hypot(s.alpha, s.sigma) * way[-1]).to(x.dtype)


def worst_of_batch(error: Tensor) -> Tensor:
    """Root mean square over each image of (B, ...), the largest of the batch."""
    return error.flatten(1).square().mean(1).sqrt().max()
