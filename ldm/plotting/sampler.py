"""A sampler at work on a mixture whose exact denoiser is known, so that all that is wrong is the sampler's."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers import Sampler
from ldm.plotting import mixture
from ldm.plotting.figure import BLUE, GREY, ORANGE, new_figure, tidy

SIDE = 2.6  # the plane is shown from -SIDE to SIDE
MOST_SPREAD = 2.0  # of x at the noisy end; on paths that go beyond, x is shown scaled to its spread


def draw_sampler(sampler: Sampler, path: NoisePath, lines: int, samples: int, seed: int, title: str) -> Figure:
    """`lines` trajectories from noise to data, and where `samples` points end, over the density of the data."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(max(samples, lines), 2, generator=generator, dtype=torch.float64)

    x = path.start(noise())
    times, states = [path.t_max], [x]
    with torch.no_grad():
        for step in sampler.steps(mixture.denoiser(path), path, x, noise):
            times.append(step.t)
            states.append(step.x)
        scaled = path.prior_std > MOST_SPREAD
        ways = torch.stack(states)  # (steps + 1, samples, 2)
        t = torch.tensor(times, dtype=torch.float64)
        shown = ways / torch.hypot(path.alpha(t), path.sigma(t))[:, None, None] if scaled else ways
    figure = new_figure(10, 5.6)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    axis = "x / sqrt(alpha^2 + sigma^2)" if scaled else "x"
    data(left)
    left.plot(*shown[:, :lines].unbind(-1), color=BLUE, linewidth=0.8, alpha=0.8, marker=".", markersize=3)
    left.scatter(*shown[0, :lines].T, s=16, facecolors="white", edgecolors=GREY, zorder=3, label="start: noise")
    left.scatter(*shown[-1, :lines].T, s=16, color=ORANGE, zorder=3, label="end: sample")
    left.legend(frameon=True, framealpha=0.9, loc="upper right", fontsize=8)
    frame(left, f"{lines} trajectories, a dot after each step", axis)
    data(right)
    right.scatter(*ways[-1, :samples].T, s=5, color=ORANGE, alpha=0.6, linewidths=0)
    frame(right, f"{samples} samples over the density of the data", "x")
    return figure


def data(axes: Axes) -> None:
    """The density of the data as contours."""
    line = torch.linspace(-SIDE, SIDE, 200, dtype=torch.float64)
    height = mixture.density(torch.stack(torch.meshgrid(line, line, indexing="xy"), -1))
    levels = [float(height.max()) * share for share in (0.01, 0.05, 0.2, 0.6)]
    axes.contour(line, line, height, levels=levels, colors=GREY, linewidths=0.8)


def frame(axes: Axes, title: str, axis: str) -> None:
    tidy(axes, title, f"first dimension of {axis}", f"second dimension of {axis}")
    axes.set_aspect("equal")
    axes.set_xlim(-SIDE, SIDE)
    axes.set_ylim(-SIDE, SIDE)
