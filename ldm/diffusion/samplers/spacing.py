"""Which times a sampler visits."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath

Spacing = Literal["trailing", "leading", "linspace"]


def time_grid(spacing: Spacing, num_steps: int, path: NoisePath) -> Tensor:
    """The times of `num_steps` steps: float64 (num_steps + 1,) on the CPU, falling strictly, the last one 0.

    On a path of T steps the times are (k+1)/T for whole k (Lin et al. 2023, arXiv 2305.08891, table 2):
    trailing has k = T-1 and even strides down, leading k = 0 and even whole strides up (so it starts short of
    T-1), linspace both. In continuous time the same holds of t_max and t_min.

    Raises:
        ValueError: spacing unknown, num_steps under 1, or over the steps that the path has.
    """
    check_spacing(spacing, num_steps)
    if path.num_steps is None:
        times = _continuous(spacing, num_steps, path.t_min, path.t_max)
    else:
        if num_steps > path.num_steps:
            raise ValueError(
                f"num_steps={num_steps} is more than the {path.num_steps} steps of {type(path).__name__}; "
                f"choose at most {path.num_steps}."
            )
        times = (_discrete(spacing, num_steps, path.num_steps) + 1) / path.num_steps
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def check_spacing(spacing: str, num_steps: int) -> None:
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing={spacing!r} is unknown; choose one of {', '.join(get_args(Spacing))}.")
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} takes no step; choose at least 1 (50 is usual).")


def _discrete(spacing: Spacing, n: int, total: int) -> Tensor:
    """Whole k, falling, float64 (n,)."""
    down = torch.arange(n, 0, -1, dtype=torch.float64)  # n, ..., 1
    if spacing == "leading":
        return (down - 1) * (total // n)
    if spacing == "trailing":
        return (down * total / n).round() - 1
    if n == 1:
        return down * (total - 1)  # a single step must start from noise
    return ((down - 1) * (total - 1) / (n - 1)).round()


def _continuous(spacing: Spacing, n: int, t_min: float, t_max: float) -> Tensor:
    """Times, falling, float64 (n,)."""
    down = torch.arange(n, 0, -1, dtype=torch.float64)
    if spacing == "leading":
        return t_min + (t_max - t_min) * (down - 1) / n
    if spacing == "trailing" and t_max / n >= t_min:
        return t_max * down / n
    return torch.linspace(t_max, t_min, n, dtype=torch.float64)
