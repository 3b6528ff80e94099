"""Telling a network what it last thought of x0. Chen et al. 2022, Analog Bits (arXiv:2208.04202), section 3.2."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised

GUESSED = slice(None, None, 2)  # rows that are trained with an estimate


def wants_estimate(net: Any) -> bool:
    """Does the network take `cond.estimate`? Then its condition has `with_estimate(x0)` and `rows(slice)`."""
    return getattr(net, "self_conditioning", False)


def with_first_look(look: Callable[[Any], Denoise], x_t: Tensor, t: Tensor, cond: Any) -> Any:
    """The condition with the estimate of a first look, without gradient, in every second row and zeros in the others.

    The paper's algorithm 1 tosses a coin for the whole batch instead; this costs the same on average.

    Args:
        look: a condition -> the network under it as a Denoise.
        x_t: (B, C, ...).
        t: (B,).
        cond: of the B rows.
    """
    estimate = torch.zeros_like(x_t)
    with torch.no_grad():
        estimate[GUESSED] = look(cond.rows(GUESSED))(x_t[GUESSED], t[GUESSED]).x0
    torch.clear_autocast_cache()  # autocast remembers casts of weights, which were made without a gradient here
    return cond.with_estimate(estimate)


def remembering(look: Callable[[Any], Denoise], cond: Any) -> Denoise:
    """A Denoise that tells the network with each question what it answered to the last one of the same shape."""
    newest: Tensor | None = None

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        nonlocal newest
        known = newest is not None and newest.shape == x_t.shape
        denoised = look(cond.with_estimate(newest) if known else cond)(x_t, t)
        newest = denoised.x0.detach().clone()
        return denoised

    return denoise
