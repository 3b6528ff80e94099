"""Interpolation on the sphere, which keeps noise noise."""

import torch
from torch import Tensor

NEARLY_PARALLEL = 1e-6  # sine of the angle, below which the sphere is flat


def slerp(one: Tensor, other: Tensor, weight: Tensor | float) -> Tensor:
    """sin((1 - w) a) / sin(a) one + sin(w a) / sin(a) other, where a is the angle between the two.

    Shoemake 1985, "Animating rotation with quaternion curves"; for two noises, Song et al. 2020, arXiv 2010.02502,
    section 5.3. Equal norms are kept, so what lies between two noises looks like noise too; the mean of two does not.
    Nearly parallel noises, and opposite ones, between which no arc is the shortest, are interpolated straight.

    Args:
        one, other: (B, ...), each image by itself.
        weight: 0 gives `one`, 1 gives `other`; a number or (B,).
    """
    a, b = one.flatten(1).double(), other.flatten(1).double()  # (B, D); products of many terms, so float64
    w = torch.as_tensor(weight, dtype=torch.float64, device=one.device).reshape(-1, 1)  # (B, 1) or (1, 1)
    cosine = (a * b).sum(1, keepdim=True) / (a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True))
    angle = torch.acos(cosine.clamp(-1, 1))
    straight = ~(angle.sin() > NEARLY_PARALLEL)  # also where one of them is 0 and the angle is not a number
    sine = torch.where(straight, 1.0, angle.sin())
    first = torch.where(straight, 1 - w, torch.sin((1 - w) * angle) / sine)
    second = torch.where(straight, w, torch.sin(w * angle) / sine)
    return (first * a + second * b).to(one.dtype).reshape(one.shape)
