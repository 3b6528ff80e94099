"""A mixture of Gaussians in the plane, whose exact denoiser is known: what the pictures of samplers sample from."""

import torch
from torch import Tensor

from ldm.diffusion import Denoise, Denoised
from ldm.diffusion.paths import NoisePath

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
MEANS = torch.tensor([[-1.3, 0.9], [1.3, 0.8], [0.1, -1.1]], dtype=torch.float64)
STDS = torch.tensor([0.15, 0.25, 0.35], dtype=torch.float64)


def denoiser(path: NoisePath) -> Denoise:
    """E[x0 | x_t] for x_t (B, 2): the means of the components given x_t, weighed by how probable each is."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = path.alpha(t).reshape(-1, 1), path.sigma(t).reshape(-1, 1)
        variances = (alpha * STDS) ** 2 + sigma**2  # (B or 1, K)
        away = x_t[:, None] - alpha[:, :, None] * MEANS  # (B, K, 2)
        logits = WEIGHTS.log() - variances.log() - away.square().sum(-1) / (2 * variances)
        each = MEANS + (alpha * STDS**2 / variances)[:, :, None] * away
        return Denoised((logits.softmax(1)[:, :, None] * each).sum(1))

    return denoise


def density(x: Tensor) -> Tensor:
    """The mixture's density at points (..., 2)."""
    squares = (x[..., None, :] - MEANS).square().sum(-1)  # (..., K)
    return (WEIGHTS * (-squares / (2 * STDS**2)).exp() / (2 * torch.pi * STDS**2)).sum(-1)
