"""Errors that are squared where small and grow evenly where large."""

import math

from torch import Tensor

from ldm.diffusion.errors.base import Error


class Huber(Error):
    """Mean over the values of d^2 where |d| <= delta and 2 delta |d| - delta^2 elsewhere, d = output - target.

    This is twice Huber's function (Huber 1964), so that small errors cost what they do with MSE.

    Args:
        delta: Where the square ends, over 0.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not 0 < delta < math.inf:
            raise ValueError(f"delta={delta} bounds no error; choose a finite number over 0, or the error MSE or L1.")
        self.delta = delta

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        size = (output - target).abs()
        squared = size.clamp(max=self.delta)
        return (squared * (2 * size - squared)).flatten(1).mean(1)


class PseudoHuber(Error):
    """sqrt(mean d^2 + c^2) - c of a whole sample, d = output - target: its distance, smooth at 0.

    Song and Dhariwal 2023 (arXiv 2310.14189), section 3.3, who take the sum over D values and c sqrt(D): the same up
    to the factor sqrt(D).

    Args:
        c: Distance per value below which the error is squared, over 0; 0.00054 is the paper's.
    """

    def __init__(self, c: float = 0.00054) -> None:
        if not 0 < c < math.inf:
            raise ValueError(f"c={c} is no size of an error; choose a finite number over 0 (0.00054 is usual).")
        self.c = c

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        square = (output - target).square().flatten(1).mean(1)
        return square / ((square + self.c**2).sqrt() + self.c)
