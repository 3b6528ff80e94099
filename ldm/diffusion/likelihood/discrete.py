"""The variational bound of a discrete path, all its terms."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from ldm.diffusion.bounds import decoder_nll, prior_kl, step_kl
from ldm.diffusion.denoise import Denoise
from ldm.diffusion.likelihood.base import Likelihood, Term
from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.samplers.base import Noise
from ldm.diffusion.spacings import Trailing
from ldm.diffusion.variances import FixedSmall, LearnedRange, Variance


class Discrete(Likelihood):
    """L_T + sum of L_{t-1} + L_0 (Ho et al. 2020, arXiv 2006.11239, eq. 5), for models on a discrete path.

    One draw of x_t a step, so it is an unbiased estimate of the bound.

    Args:
        num_steps: Steps of the reverse process whose bound this is, spaced as by Trailing; left out, those of the path.
        variance: Spread of a step; left out, LearnedRange where the network has learned it, else FixedSmall.
    """

    bounds = True

    def __init__(self, num_steps: int | None = None, variance: Variance | None = None) -> None:
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps={num_steps} takes no step; choose at least 1, or leave it out for all.")
        self.num_steps = num_steps
        self.variance = variance

    def terms(
        self, denoise: Denoise, path: NoisePath, x0: Tensor, noise: Noise, levels: int | None = None
    ) -> Iterator[Term]:
        grid = Trailing().grid(self.num_terms(path) - 1, path)
        yield Term("prior", float(grid[0]), prior_kl(path, grid[0], x0))
        for t, s in pairwise(grid):
            denoised = denoise(path.corrupt(x0, noise(), t), t)
            variance = self.variance or (FixedSmall() if denoised.variance is None else LearnedRange())
            log_variance = variance.log_variance(path, t, s, denoised.variance)
            if s > 0:
                yield Term("step", float(t), step_kl(path, t, s, x0, denoised.x0, log_variance))
            else:
                yield Term("decoder", float(t), decoder_nll(x0, denoised.x0, log_variance, levels))

    def num_terms(self, path: NoisePath) -> int:
        steps = self.num_steps or path.num_steps
        assert steps is not None
        return steps + 1

    def check(self, path: Path) -> None:
        super().check(path)
        if path.num_steps is None:
            raise ValueError(
                f"The discrete bound sums over the steps of a discrete path, and {type(path).__name__} is continuous: "
                "use the continuous bound, or the ODE."
            )
        Trailing().grid(self.num_steps or path.num_steps, path)
