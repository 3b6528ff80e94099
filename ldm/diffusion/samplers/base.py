"""The seam of every sampler."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.paths import Level, NoisePath, Path, levels
from ldm.diffusion.shapes import scalar
from ldm.diffusion.spacings import Spacing, Trailing

# Returns the next standard normal tensor, of the shape, dtype and device of x.
Noise = Callable[[], Tensor]


@dataclass(slots=True)
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

    The coefficients are float64 numbers, so x keeps its dtype.

    Attributes:
        num_steps: steps from t_max to 0.
        spacing: which times are visited.
    """

    def __init__(self, num_steps: int, spacing: Spacing | None) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} takes no step; choose at least 1 (50 is usual).")
        self.num_steps = num_steps
        self.spacing = Trailing() if spacing is None else spacing

    @property
    def obeys_moves(self) -> bool:
        """Whether it goes on from `Denoised.x_t` where a rule has moved the state; see `look`."""
        return True

    @abstractmethod
    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        """Yield each step from x (B, ...) at the path's noisy end, `path.start(eps)`, to data at t = 0.

        `noise` is called only when randomness is needed: never by a deterministic sampler.
        """

    def check(self, path: Path) -> None:
        """Raise ValueError where this sampler cannot walk this path, saying what to use instead."""
        if not isinstance(path, NoisePath):
            raise ValueError(
                f"{type(self).__name__} removes Gaussian noise, and {type(path).__name__} adds none: use the sampler "
                "Cold."
            )
        self.spacing.grid(self.num_steps, path)

    def sample(self, denoise: Denoise, path: NoisePath, eps: Tensor, noise: Noise) -> Tensor:
        """The last step's x, started from standard normal eps (B, ...)."""
        x = path.start(eps)
        for step in self.steps(denoise, path, x, noise):
            x = step.x
        return x

    def intervals(self, path: NoisePath) -> list[tuple[Level, Level]]:
        """The two ends of each step, from the noisier one down; the last one ends at t = 0."""
        return list(pairwise(levels(path, self.spacing.grid(self.num_steps, path))))


# (x, x0, t, s) -> the x at s that a step from t makes of the state x and the estimate x0.
Move = Callable[[Tensor, Tensor, Level, Level], Tensor]


def walk(intervals: list[tuple[Level, Level]], denoise: Denoise, x: Tensor, move: Move) -> Iterator[Step]:
    """The steps of a sampler that looks once a step; the one into t = 0 returns x0."""
    for index, (t, s) in enumerate(intervals):
        x, x0 = look(denoise, x, t.t)
        x = x0 if s.t == 0 else move(x, x0, t, s)
        yield Step(index, len(intervals), s.t, x, x0)


def ask(denoise: Denoise, x: Tensor, t: float) -> Denoised:
    """`denoise` at one time for the whole batch."""
    return denoise(x, scalar(t))


def look(denoise: Denoise, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """The state to go on from and the estimate x0 at it: x itself, unless a rule moves it."""
    denoised = ask(denoise, x, t)
    return (x if denoised.x_t is None else denoised.x_t), denoised.x0
