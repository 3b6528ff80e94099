"""The probability-flow ODE as a rotation from data to noise, and the divergence of its velocity.

With z = x / sqrt(alpha^2 + sigma^2) and the angle tan(a) = sigma / alpha, every path is z = cos(a) x0 + sin(a) eps, and
its ODE (Song et al. 2021, arXiv 2011.13456, eq. 13) becomes dz/da = -sin(a) x0_hat + cos(a) eps_hat, with eps_hat the
noise that x0_hat implies. It has no infinite coefficient at either end and does not care how time runs along the path.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise
from ldm.diffusion.likelihood.base import at, uniform
from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.samplers.base import Noise

# (z (B, C, ...), angle) -> velocity, like z, and its divergence per dimension (B,)
Flow = Callable[[Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Arc:
    """The part of the way that a path runs, from little noise to much: times, angles, the spread of z at the end."""

    t: tuple[float, float]
    angle: tuple[float, float]
    prior_std: float


def arc(path: NoisePath, start: float | None) -> Arc:
    """From time `start`, left out t_min, to t_max."""
    t = (path.t_min if start is None else start, path.t_max)
    first, last = (math.atan(math.exp(-float(path.logsnr(at(each))) / 2)) for each in t)
    end = at(path.t_max)
    return Arc(t, (first, last), path.prior_std / float(torch.hypot(path.alpha(end), path.sigma(end))))


def begin(x0: Tensor, way: Arc, noise: Noise, levels: int | None) -> tuple[Tensor, Tensor]:
    """z at the start of the way, and what the change of variables adds to -log p: nats per dimension (B,).

    Data of `levels` values are spread evenly over the bins around them first.
    """
    width = 0.0
    if levels is not None:
        x0, width = dequantised(x0, noise, levels)
    shrunk = math.cos(way.angle[0])
    return shrunk * x0, torch.full_like(x0.flatten(1)[:, 0], width - math.log(shrunk))


def time(path: NoisePath, angle: float) -> float:
    """The time at which the path is at an angle."""
    return float(path.t_from_logsnr(at(-2 * math.log(math.tan(angle)))))


def flow(denoise: Denoise, path: NoisePath, way: Arc, probes: Sequence[Tensor]) -> Flow:
    """Velocity and divergence; the divergence by `probes`, or exactly where there are none.

    A probe e (B, C, ...) gives e^T J e (Hutchinson's estimate, as in FFJORD, Grathwohl et al. 2019, arXiv 1810.01367,
    section 3.1): right on the mean for e of mean 0 and covariance I. The exact trace takes a backward pass a dimension.
    """

    @cache  # a solver comes to most angles twice, and some paths look long for the time
    def place(angle: float) -> tuple[float, float, Tensor, float]:
        """cos, sin, the time and the length of (alpha, sigma) there."""
        angle = min(max(angle, way.angle[0]), way.angle[1])  # a solver's sum of steps may end a rounding beyond it
        cos, sin = math.cos(angle), math.sin(angle)
        with torch.no_grad():
            t = path.t_from_logsnr(at(2 * math.log(cos / sin))).clamp(*way.t)
            return cos, sin, t, float(torch.hypot(path.alpha(t), path.sigma(t)))

    def velocity(z: Tensor, angle: float) -> Tensor:
        cos, sin, t, norm = place(angle)
        return (cos * z - denoise(norm * z, t).x0) / sin

    def both(z: Tensor, angle: float) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            z = z.detach().clone().requires_grad_()  # a clone made here can be differentiated, whoever made z
            moved = velocity(z, angle)
            traces = [e * pulled(moved, z, e) for e in probes] or [diagonal(moved, z)]
        return moved.detach(), torch.stack(traces).mean(0).flatten(1).mean(1)

    return both


def pulled(moved: Tensor, z: Tensor, probe: Tensor) -> Tensor:
    """probe^T d moved / d z, shaped like z."""
    return torch.autograd.grad(moved, z, probe, retain_graph=True)[0]


def diagonal(moved: Tensor, z: Tensor) -> Tensor:
    """The diagonal of d moved / d z of each sample, shaped like z."""
    found = torch.zeros_like(z)
    for place in range(z[0].numel()):
        unit = torch.zeros_like(z)
        unit.flatten(1)[:, place] = 1
        found += unit * pulled(moved, z, unit)
    return found


def rademacher(noise: Noise, count: int) -> list[Tensor]:
    """`count` tensors of independent signs from the next of `noise`."""
    drawn = [noise() for _ in range(count)]
    return [torch.where(each < 0, -1, 1).to(each) for each in drawn]


def dequantised(x0: Tensor, noise: Noise, levels: int) -> tuple[Tensor, float]:
    """Values spread evenly over the bins around them, and -log of the width of a bin.

    The mean over the spread of -log density - log width is a bound on -log probability of the bin (Theis et al. 2016,
    arXiv 1511.01844).
    """
    width = 2 / (levels - 1)
    return x0 + width * (uniform(noise) - 0.5).to(x0.dtype), -math.log(width)


def prior_nll(z: Tensor, std: float) -> Tensor:
    """-log of the density of N(0, std^2) at z (B, ...), in nats per dimension (B,)."""
    return ((z / std).square().flatten(1).mean(1) + math.log(2 * math.pi * std**2)) / 2


def check_flow(num_probes: int, start: float | None) -> None:
    if num_probes < 1:
        raise ValueError(f"num_probes={num_probes} estimates nothing; choose at least 1, or exact_trace.")
    if start is not None and not 0 < start < 1:
        raise ValueError(f"start={start} is no time to start from; choose one over 0 and under 1, or leave it out.")


def check_start(start: float | None, path: Path) -> None:
    if start is not None and start >= path.t_max:
        raise ValueError(
            f"start={start} is not before the end of {type(path).__name__}, {path.t_max}; choose a small time, or "
            "leave it out."
        )
