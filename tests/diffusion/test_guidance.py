import math

import pytest
import torch
from diffusion_cases import PATHS, ROUND, TILTED, inner_times, name, normal

from ldm.diffusion import Denoised
from ldm.diffusion.guidance import ClassifierFree, Contrast, guide
from ldm.diffusion.paths import Cosine
from ldm.diffusion.predictions import Eps


def guided(path, wanted, other, scale):
    return guide(Contrast(path, wanted, other), ClassifierFree(scale))


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_two_gaussians_are_combined_linearly(path, scale):
    x_t, t = normal(97, 2), inner_times(path)
    wanted, dropped = TILTED.denoiser(path), ROUND.denoiser(path)
    combined = guided(path, wanted, dropped, scale)(x_t, t).x0
    expected = scale * wanted(x_t, t).x0 + (1 - scale) * dropped(x_t, t).x0
    torch.testing.assert_close(combined, expected)


def test_guiding_x0_guides_eps_by_the_same_rule():
    path, scale = Cosine(), 4.0
    x_t, t = normal(97, 2), inner_times(path)
    wanted, dropped = TILTED.denoiser(path), ROUND.denoiser(path)
    eps_wanted = path.implied_eps(x_t, wanted(x_t, t).x0, t)
    eps_dropped = path.implied_eps(x_t, dropped(x_t, t).x0, t)
    converted = Eps().to_x0(eps_dropped + scale * (eps_wanted - eps_dropped), x_t, t, path)
    torch.testing.assert_close(guided(path, wanted, dropped, scale)(x_t, t).x0, converted, rtol=1e-8, atol=1e-8)


def test_scale_one_never_calls_uncond():
    def never(x_t, t):
        raise AssertionError("uncond was called")

    x_t, t = normal(97, 2), inner_times(Cosine())
    wanted = TILTED.denoiser(Cosine())
    assert torch.equal(guided(Cosine(), wanted, never, 1.0)(x_t, t).x0, wanted(x_t, t).x0)


def test_the_variance_is_the_conditional_one():
    x, ours, theirs = normal(3, 2), normal(3, 2, seed=1), normal(3, 2, seed=2)
    denoise = guided(Cosine(), lambda x_t, t: Denoised(x, ours), lambda x_t, t: Denoised(x, theirs), 2.0)
    denoised = denoise(x, torch.ones(3))
    assert denoised.variance is ours
    torch.testing.assert_close(denoised.x0, x)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(ValueError, match="1 is off"):
        ClassifierFree(scale)
