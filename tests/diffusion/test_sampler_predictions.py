"""One model told as x0, eps, v, velocity, score or preconditioned is one model to every sampler."""

from functools import cache

import pytest
import torch
from diffusion_cases import PATHS, PREDICTIONS, SAMPLERS, TILTED, NoiseSource, fits, name, normal
from torch import Tensor

from ldm.diffusion import Denoise, Denoised, Diffusion
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.samplers.dormand_prince import DormandPrince


@cache
def exact(path: NoisePath) -> Denoise:
    return TILTED.denoiser(path)


@cache
def as_network(path: NoisePath, prediction: Prediction) -> Denoise:
    """The exact model as a network that returns `prediction`, read back by the process."""
    now: list[tuple[Tensor, Tensor]] = []
    known: dict[float, tuple[float, float]] = {}

    def net(inputs: Tensor, heard: Tensor, cond: None) -> Tensor:
        x_t, t = now.pop()
        if float(t) not in known:
            a, b = prediction.x0_coefficients(t, path)
            known[float(t)] = float(a), float(b)
        a, b = known[float(t)]
        return (exact(path)(x_t, t).x0 - a * x_t) / b  # Prediction.from_x0

    process = Diffusion(path, prediction)

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        now.append((x_t, t))
        with torch.no_grad():
            return process.denoiser(net, None)(x_t, t)

    return denoise


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_every_prediction_gives_one_trajectory(sampler, path):
    made, x = sampler(num_steps=4), normal(6, 2)
    if sampler is DormandPrince:  # its many calls are to be few, and exact they need not be
        made = DormandPrince(2, rtol=0.05, atol=0.05)
    try:
        made.check(path)
    except ValueError as reason:
        pytest.skip(str(reason))
    start = path.start(x)
    with torch.no_grad():
        wanted = list(made.steps(exact(path), path, start, NoiseSource(x)))
    for prediction in [each for each in PREDICTIONS if fits(each, path)]:
        found = list(made.steps(as_network(path, prediction), path, start, NoiseSource(x)))
        for step, other in zip(found, wanted, strict=True):
            scale = max(1.0, float(other.x.abs().max()))
            torch.testing.assert_close(step.x, other.x, rtol=0, atol=1e-9 * scale, msg=name(prediction))
