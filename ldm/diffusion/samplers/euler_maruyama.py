"""The Euler-Maruyama method on the reverse SDE."""

import math
from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.paths import Level, NoisePath
from ldm.diffusion.samplers.base import Noise, Sampler, Step, walk
from ldm.diffusion.samplers.euler import velocity
from ldm.diffusion.spacings import Spacing

# w(t) of dx = (u - w / 2 score) dt + sqrt(w) dw, run backwards; every w gives the path's own laws
DIFFUSIONS: dict[str, Callable[[Level], float]] = {
    "path": lambda level: level.g2,
    "sigma": lambda level: level.sigma,
}


class EulerMaruyama(Sampler):
    """Stochastic, wants 100 steps or more; the plain reverse SDE, the textbook's reference.

    x_s = x - h u + h w / 2 score + sqrt(w h) z, where h = t - s, u is the ODE's velocity and score = -eps / sigma. With
    w = g^2 of the path it is the reverse SDE of Song et al. 2021 (arXiv 2011.13456, eq. 6); w = sigma is the default of
    SiT (Ma et al. 2024, arXiv 2401.08740), finite on RectifiedFlow where g^2 is not. Every w has the same laws, so
    where a step of it would overshoot, it is held at sigma^2 / h, and where it is infinite (no data left in x, so
    alpha = 0) the step is the ODE's.

    Args:
        num_steps: Number of calls of the network.
        diffusion: What w is: path (its g^2) or sigma.
        scale: Factor of w: 0 is the sampler Euler, 1 the SDE itself.
        spacing: Times visited; left out, Trailing.
    """

    def __init__(
        self, num_steps: int = 250, diffusion: str = "path", scale: float = 1.0, spacing: Spacing | None = None
    ) -> None:
        super().__init__(num_steps, spacing)
        if diffusion not in DIFFUSIONS:
            raise ValueError(f"diffusion={diffusion!r} is not known; choose one of {', '.join(DIFFUSIONS)}.")
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale={scale} is no factor of a diffusion; choose 0 (the ODE) or more (1 is usual).")
        self.diffusion = diffusion
        self.scale = scale

    def steps(self, denoise: Denoise, path: NoisePath, x: Tensor, noise: Noise) -> Iterator[Step]:
        return walk(self.intervals(path), denoise, x, partial(self.move, noise=noise))

    def move(self, x: Tensor, x0: Tensor, t: Level, s: Level, noise: Noise) -> Tensor:
        """x (B, ...) at t to x at s < t."""
        span = t.t - s.t
        there = x.add(velocity(x, x0, t), alpha=-span)
        w = DIFFUSIONS[self.diffusion](t)
        if self.scale == 0 or not math.isfinite(w):
            return there
        share = min(self.scale * w * span / t.sigma**2, 1.0)  # of the noise variance in x, what is replaced
        there = there.add(x, alpha=-share / 2).add(x0, alpha=share / 2 * t.alpha)  # score = -(x - alpha x0) / sigma^2
        return there.add(noise(), alpha=t.sigma * math.sqrt(share))
