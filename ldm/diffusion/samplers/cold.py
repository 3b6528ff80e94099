"""The sampler of cold diffusion."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from ldm.diffusion.degradations import Degradation
from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Path
from ldm.diffusion.samplers.base import Noise, Sampler, Step, look
from ldm.diffusion.spacings import Spacing


class Cold(Sampler):
    """For models that undo a degradation (blur, pixelation, fade), and the only one for them.

    Bansal et al. 2022, arXiv 2208.09392. The improved one changes x_t by what the restored image changes between two
    degrees of degradation, so that errors of the restoration cancel where D is smooth (section 3.3).

    Args:
        num_steps: Number of calls of the network, at most as many as the degradation has steps.
        improved: Algorithm 2, x_s = x_t - D(x0, t) + D(x0, s); false: algorithm 1, x_s = D(x0, s).
        spacing: Times visited; left out, Trailing.
    """

    def __init__(self, num_steps: int = 40, improved: bool = True, spacing: Spacing | None = None) -> None:
        super().__init__(num_steps, spacing)
        self.improved = improved

    def check(self, path: Path) -> None:
        if not isinstance(path, Degradation):
            raise ValueError(
                f"Cold undoes a degradation, and {type(path).__name__} adds noise: use DDIM or another sampler, or a "
                "model of ColdDiffusion."
            )
        if self.num_steps > path.num_steps:
            raise ValueError(
                f"num_steps={self.num_steps} is more than the {path.num_steps} steps that {type(path).__name__} was "
                f"trained at; choose at most {path.num_steps}."
            )
        self.spacing.grid(self.num_steps, path)

    def steps(self, denoise: Denoise, path: Path, x: Tensor, noise: Noise) -> Iterator[Step]:
        assert isinstance(path, Degradation), "`check` refuses every other path"
        times = self.spacing.grid(self.num_steps, path)
        for index, (t, s) in enumerate(pairwise(times)):
            x, x0 = look(denoise, x, float(t))
            x = self.move(x, x0, t, s, path)
            yield Step(index, self.num_steps, float(s), x, x0)

    def move(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, path: Degradation) -> Tensor:
        """x (B, C, H, W) at t to x at s < t, both 0-dim."""
        restored = path.at(x0, s)
        return x - path.at(x0, t) + restored if self.improved else restored
