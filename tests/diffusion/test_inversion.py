import math

import pytest
import torch
from diffusion_cases import PATHS, ROUND, TWO_MODES, forbidden_noise, name, normal

from ldm.diffusion import Denoised
from ldm.diffusion.paths import EDM, Cosine, Linear, NoisePath, RectifiedFlow
from ldm.diffusion.samplers import DDIM, DDIMInversion
from ldm.diffusion.spacings import Linspace

SMOOTH = [Cosine(), RectifiedFlow(), EDM()]


def halving(errors: list[float]) -> float:
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_inversion_follows_the_exact_ode_up(path):
    # At t_min of Linspace the data lie where DDIM takes them to be; from there on the law of a Gaussian is exact.
    noise = path.start(normal(64, 2))
    x = ROUND.transport(path, noise, end=path.t_min)
    errors = []
    for n in (100, 200):
        *_, last = DDIMInversion(n, Linspace()).steps(ROUND.denoiser(path), path, x)
        assert last.t == path.t_max
        errors.append(float((last.x - noise).square().mean().sqrt()) / path.prior_std)
    assert halving(errors) == pytest.approx(1, abs=0.15)
    assert errors[1] < 0.05


def round_trip(path: NoisePath, num_steps: int) -> float:
    x = normal(64, 2) * 0.4 + torch.tensor([0.8, -0.4]).double()
    denoise = TWO_MODES.denoiser(path)
    eps = DDIMInversion(num_steps).invert(denoise, path, x)
    again = DDIM(num_steps).sample(denoise, path, eps, forbidden_noise)
    return float((again - x).square().mean().sqrt())


@pytest.mark.parametrize("path", [Cosine(), RectifiedFlow()], ids=name)
def test_ddim_returns_what_was_inverted(path):
    errors = [round_trip(path, n) for n in (100, 200)]
    assert halving(errors) == pytest.approx(1, abs=0.3)
    assert errors[1] < 0.03


@pytest.mark.parametrize("path", [Linear(), EDM()], ids=name)
def test_ddim_returns_what_was_inverted_on_other_paths(path):
    errors = [round_trip(path, n) for n in (50, 100, 200)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_a_step_up_undoes_a_step_down_where_the_estimate_is_the_same(path):
    x0, x = normal(8, 2, seed=1), normal(8, 2)
    inversion = DDIMInversion(7)
    steps = list(inversion.steps(lambda x_t, t: Denoised(x0), path, x))
    assert [step.index for step in steps] == list(range(6))
    assert {step.num_steps for step in steps} == {6}
    *_, lowest, _ = DDIM(7).steps(lambda x_t, t: Denoised(x0), path, steps[-1].x, forbidden_noise)
    torch.testing.assert_close(lowest.x, x, rtol=0, atol=1e-7)
    assert [step.t for step in steps] == sorted(step.t for step in steps)
    eps = inversion.invert(lambda x_t, t: Denoised(x0), path, x)
    torch.testing.assert_close(path.start(eps), steps[-1].x)


def test_too_few_times_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        DDIMInversion(1)
