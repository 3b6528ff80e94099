"""The variational bound of infinitely many steps."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ldm.diffusion.bounds import decoder_nll, prior_kl
from ldm.diffusion.denoise import Denoise
from ldm.diffusion.likelihood.base import Likelihood, Term, at, uniform
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers.base import Noise
from ldm.diffusion.shapes import per_sample

LEAST_LOGSNR = -20.0  # noisier than this x_t says nothing of the data


class Continuous(Likelihood):
    """Prior term + 1/2 integral of snr |x0 - x0_hat|^2 over logsnr + decoder (Kingma et al. 2021, arXiv 2107.00630).

    Their section 4.2 after the substitution of section 5.1. The integral runs from logsnr(t_min) to logsnr(t_max) (no
    lower than -20) and is split into `num_steps` equal parts. The network is asked once in each, at the same random
    place in all (their low-discrepancy sampler), so it is an unbiased estimate of the bound. The decoder is
    N(x0_hat, 1 / snr) at t_min. On a discrete path the network is asked between its steps too.

    Args:
        num_steps: Noise levels at which the network is asked.
    """

    bounds = True

    def __init__(self, num_steps: int = 100) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} asks the network nowhere; choose at least 1 (100 is usual).")
        self.num_steps = num_steps

    def terms(
        self, denoise: Denoise, path: NoisePath, x0: Tensor, noise: Noise, levels: int | None = None
    ) -> Iterator[Term]:
        low, high = (float(path.logsnr(at(t))) for t in (path.t_max, path.t_min))
        low = max(low, LEAST_LOGSNR)
        end = path.t_from_logsnr(at(low)).clamp(path.t_min, path.t_max)
        yield Term("prior", float(end), prior_kl(path, end, x0))
        width = (high - low) / self.num_steps
        u = uniform(noise, per_sample=True).double()
        levels_of_noise = low + width * (torch.arange(self.num_steps, device=u.device)[:, None] + u)  # (num_steps, B)
        times = path.t_from_logsnr(levels_of_noise).clamp(path.t_min, path.t_max)
        for logsnr, t in zip(levels_of_noise, times, strict=True):
            estimate = denoise(path.corrupt(x0, noise(), t), t).x0
            error = (per_sample((logsnr / 2).exp(), x0) * (x0 - estimate)).square()
            yield Term("step", float(t.mean()), width / 2 * error.flatten(1).mean(1))
        last = at(path.t_min)
        estimate = denoise(path.corrupt(x0, noise(), last), last).x0
        yield Term("decoder", path.t_min, decoder_nll(x0, estimate, torch.as_tensor(-high), levels))

    def num_terms(self, path: NoisePath) -> int:
        return self.num_steps + 2
