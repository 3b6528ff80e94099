"""Langevin dynamics at one falling noise level after the other."""

import math
from collections.abc import Iterator

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import NoisePath, Path, level
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.samplers.predictor_corrector import langevin
from ldm.diffusion.spacings import Spacing


class AnnealedLangevin(Sampler):
    """Stochastic, many calls; the sampler of NCSN, for paths that only add noise (VE, EDM).

    Song and Ermon 2019, arXiv 1907.05600, algorithm 1: at each level, x + a / 2 score + sqrt(a) z several times, with
    a = step_size sigma^2. That is their a_i = e (sigma_i / sigma_L)^2 with step_size = e / sigma_L^2, by their numbers
    2e-5 / 0.01^2 = 0.2. From one level to the next x stays as it is, so alpha has to be 1 throughout. At the end x0 is
    returned, as in their later work (arXiv 2006.09011).

    Args:
        num_steps: Number of noise levels L.
        langevin_steps: Langevin steps at each level (their T); each calls the network once.
        step_size: Size a of a step in units of sigma^2: 1 suits few steps at each of many levels, their 0.2 some 100
            steps at each of 10.
        spacing: Noise levels visited; left out, Trailing.
    """

    def __init__(
        self, num_steps: int = 100, langevin_steps: int = 5, step_size: float = 1.0, spacing: Spacing | None = None
    ) -> None:
        super().__init__(num_steps, spacing)
        if langevin_steps < 1:
            raise ValueError(f"langevin_steps={langevin_steps} takes no step at a level; choose at least 1.")
        if not 0 < step_size < 2:
            raise ValueError(f"step_size={step_size} makes no stable step; choose between 0 and 2 (1 is usual).")
        self.langevin_steps = langevin_steps
        self.step_size = step_size

    def check(self, path: Path) -> None:
        super().check(path)
        assert isinstance(path, NoisePath), "refused above"
        alpha = level(path, path.t_max).alpha
        if not math.isclose(alpha, 1):
            raise ValueError(
                f"AnnealedLangevin walks paths that only add noise, and alpha of {type(path).__name__} falls to "
                f"{alpha:.3g}, so that x of one noise level is no start for the next: use PredictorCorrector."
            )

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        self.check(path)
        intervals = self.intervals(path)
        for index, (t, s) in enumerate(intervals):
            for _ in range(self.langevin_steps):
                x, x0 = look(denoise, x, t.t)
                x = langevin(x, x0, t, self.step_size, noise)
            if s.t == 0:
                x, x0 = look(denoise, x, t.t)
                x = x0
            yield Step(index, len(intervals), s.t, x, x0)
