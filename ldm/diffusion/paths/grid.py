"""Times on the grid k/T of a path of T steps, seen through float32."""

import torch
from torch import Tensor


def place(t: Tensor, steps: int) -> Tensor:
    """t T in float64 where the device has it, counted as whole where float32 could not tell t from the grid point."""
    at = t.to(t.dtype if t.device.type == "mps" else torch.float64) * steps
    off = (at - at.round()).detach()  # detached, so that autograd sees a slope at grid points too
    return at - torch.where(off.abs() < 2e-7 * steps, off, 0)


def piece(at: Tensor, steps: int) -> Tensor:
    """Index of the piece (k, k+1] that a place falls in; place 0 belongs to the first."""
    return (at.ceil().long() - 1).clamp(0, steps - 1)


def up_to_grid(t: Tensor, steps: int) -> Tensor:
    """t in (k/T, (k+1)/T] gives (k+1)/T, and 0 gives 1/T."""
    return (place(t, steps).ceil().clamp(1, steps) / steps).to(t.dtype)


def to_device(table: Tensor, like: Tensor) -> Tensor:
    """A float64 table on the device of `like`, in float64 where the device has it."""
    if like.device.type == "mps":
        return table.to(like.dtype).to(like.device)
    return table.to(like.device, non_blocking=True)  # blocking would stall a GPU each step
