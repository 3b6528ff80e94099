"""DDPM that goes back up again and again, so that what is painted and what is known come to agree."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath, levels
from ldm.diffusion.samplers.base import Noise, Sampler, Step, ask
from ldm.diffusion.samplers.ddpm import DDPM, posterior_mean
from ldm.diffusion.samplers.renoise import renoise
from ldm.diffusion.spacings import Spacing
from ldm.diffusion.variances import FixedLarge, LearnedRange, Variance


class RePaint(Sampler):
    """Stochastic, many calls; the one for inpainting: it repeats stretches until the parts agree.

    Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1 and its schedule of jumps: steps of DDPM, and from every
    jump_length-th time, counted from the data, back up by jump_length times, which is noising by q. Without a mask it
    samples the model's law like DDPM. A `Step` is one call of the network, and t goes up where one follows a jump.

    Args:
        num_steps: Number of times; with jumps the network is called more often.
        jump_length: How many times a jump goes up.
        resamplings: How often each stretch is walked; 1 is DDPM.
        variance: Spread of a step; left out, LearnedRange where the network has learned it, else FixedLarge, since
            FixedSmall loses a little of the spread at every pass.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(
        self,
        num_steps: int = 100,
        jump_length: int = 10,
        resamplings: int = 3,
        variance: Variance | None = None,
        spacing: Spacing | None = None,
    ) -> None:
        super().__init__(num_steps, spacing)
        if jump_length < 1:
            raise ValueError(f"jump_length={jump_length} goes nowhere; choose at least 1 (10 is usual).")
        if resamplings < 1:
            raise ValueError(f"resamplings={resamplings} never walks; choose at least 1 (1 is DDPM, 10 is usual).")
        self.jump_length = jump_length
        self.resamplings = resamplings
        self.variance = variance

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        grid = levels(path, self.spacing.grid(self.num_steps, path))
        visits = self.visits(len(grid) - 1)
        total = sum(there > here for here, there in pairwise(visits))
        index = 0
        for here, there in pairwise(visits):
            t, s = grid[here], grid[there]
            if there < here:
                x = renoise(x, t, s, noise)
                continue
            denoised = ask(denoise, x, t.t)
            x = x if denoised.x_t is None else denoised.x_t
            if s.t == 0:
                x = denoised.x0
            else:
                x = posterior_mean(x, denoised.x0, t, s) + self.std(path, t, s, denoised.variance) * noise()
            yield Step(index, total, s.t, x, denoised.x0)
            index += 1

    def std(self, path: NoisePath, t: Level, s: Level, raw: Tensor | None) -> Tensor:
        """Standard deviation of the step from t to s, as DDPM's."""
        variance = self.variance or (FixedLarge() if raw is None else LearnedRange())
        return DDPM(variance=variance).std(path, t, s, raw)

    def visits(self, last: int) -> list[int]:
        """Places in the grid 0..last in the order they are visited; `last` is t = 0, and no jump starts there."""
        lowest = last - 1
        left = {lowest - up: self.resamplings - 1 for up in range(0, lowest + 1 - self.jump_length, self.jump_length)}
        order = [0]
        while order[-1] < last:
            here = order[-1]
            if left.get(here, 0) > 0:
                left[here] -= 1
                order.append(here - self.jump_length)
            else:
                order.append(here + 1)
        return order
