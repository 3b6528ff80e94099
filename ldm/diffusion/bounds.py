"""The terms of the variational bound on -log p(x0), each in nats per dimension: what trains and what measures share."""

import math

import torch
from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.shapes import per_sample
from ldm.diffusion.variances.base import log_new_share, log_small


def step_kl(path: NoisePath, t: Tensor, s: Tensor, x0: Tensor, estimate: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)), 0 < s < t: L_{t-1} of Ho et al. 2020 (arXiv 2006.11239, eq. 5): (B,).

    p has the mean of q with the estimate of x0 (B, ...) in its place, and the log-variance given: shaped like t, or
    like x0. So the means differ by alpha_s (1 - snr_t / snr_s) (x0 - estimate) (arXiv 2107.00630, appendix A).
    """
    log_q, log_p = per_sample(log_small(path, t, s), x0), per_sample_or_whole(log_variance, x0)
    shift = per_sample(path.alpha(s) * log_new_share(path, t, s).exp(), x0) * (x0 - estimate)
    wider = log_q - log_p
    kl = (wider.expm1() - wider + (shift * (-log_p / 2).exp()).square()) / 2
    return kl.flatten(1).mean(1)


def gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the density of N(mean, exp(log_variance)) at x (B, ...): (B,)."""
    log_variance = per_sample_or_whole(log_variance, x)
    nats = ((x - mean) * (-log_variance / 2).exp()).square() + log_variance + math.log(2 * math.pi)
    return nats.flatten(1).mean(1) / 2


def discretised_nll(x: Tensor, mean: Tensor, log_variance: Tensor, levels: int) -> Tensor:
    """-log of the probability of x (B, ...), whose values are `levels` evenly spaced ones from -1 to 1: (B,).

    Each value has the mass of N(mean, exp(log_variance)) that is nearer to it than to another; the mass beyond -1 and 1
    goes to these two (arXiv 2006.11239, eq. 13).
    """
    half = 1 / (levels - 1)
    scale = (-per_sample_or_whole(log_variance, x) / 2).exp()
    rest = x - mean
    above, below = (rest + half) * scale, (rest - half) * scale
    far = torch.full_like(rest, 1e4)  # where the distribution function is 1 in any precision
    above = torch.where(x > 1 - half, far, above)
    below = torch.where(x < -1 + half, -far, below)
    flip = above + below > 0  # to the left tail, where its logarithm has digits
    above, below = torch.where(flip, -below, above), torch.where(flip, -above, below)
    whole, less = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    share = (less - whole).clamp(max=-torch.finfo(x.dtype).tiny)
    nats: Tensor = -(whole + (-share.expm1()).log())
    return nats.flatten(1).mean(1)


def decoder_nll(x0: Tensor, mean: Tensor, log_variance: Tensor, levels: int | None) -> Tensor:
    """-log p(x0 | x_t) of the last step: a density, or a probability for data of `levels` values: (B,)."""
    if levels is None:
        return gaussian_nll(x0, mean, log_variance)
    return discretised_nll(x0, mean, log_variance, levels)


def prior_kl(path: NoisePath, t: Tensor, x0: Tensor) -> Tensor:
    """KL(q(x_t | x0) || N(0, std^2)) at the noisy end: L_T of arXiv 2006.11239, eq. 5: (B,).

    std is that of x_t for data of the path's sigma_data, `prior_std` at t_max.
    """
    alpha, variance = path.alpha(t), path.sigma(t).square()
    prior = (alpha * path.sigma_data).square() + variance
    ratio = per_sample(variance / prior, x0)
    shift = per_sample(alpha / prior.sqrt(), x0) * x0
    kl = (ratio - 1 - ratio.log() + shift.square()) / 2
    return kl.flatten(1).mean(1)


def per_sample_or_whole(value: Tensor, x: Tensor) -> Tensor:
    """A number per sample or one in all, shaped to broadcast over x; a value shaped like x as it is."""
    return value if value.dim() == x.dim() else per_sample(value, x)


def check_levels(levels: int | None) -> None:
    if levels is not None and levels < 2:
        raise ValueError(
            f"levels={levels} values cannot be told apart; choose 256 for 8-bit pixels, or leave it out for a density."
        )
