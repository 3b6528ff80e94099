"""Each guidance rule on Gaussians, against closed forms written here."""

import pytest
import torch
from diffusion_cases import ROUND, TILTED, forbidden_noise, name, normal
from guidance_cases import (
    SOME_PATHS,
    WEAK,
    X_T,
    Asked,
    answers,
    at,
    constant,
    log_density,
    x0_of_density,
)

from ldm.diffusion.guidance import (
    Autoguidance,
    Channels,
    ClassifierFree,
    Clip,
    Contrast,
    DynamicThreshold,
    Interval,
    Rescale,
    guide,
)
from ldm.diffusion.paths import RectifiedFlow
from ldm.diffusion.samplers import DDIM

# Interval


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_an_interval_guides_and_asks_the_other_model_inside_only(path):
    for t, inside in [(0.9, False), (0.8, True), (0.5, True), (0.3, True), (0.1, False)]:
        contrast = Asked(path)
        denoised = guide(contrast, ClassifierFree(3.0), Interval(0.3, 0.8))(X_T, at(t))
        wanted, other, _ = answers(path, X_T, at(t))
        torch.testing.assert_close(denoised.x0, 3 * wanted - 2 * other if inside else wanted, rtol=1e-12, atol=1e-12)
        assert contrast.calls() == ({"both": 1} if inside else {"wanted": 1})


def test_an_interval_limits_only_the_rules_before_it():
    path, t = RectifiedFlow(), at(0.9)
    wanted, _, weak = answers(path, X_T, t)
    denoise = guide(Asked(path), ClassifierFree(3.0), Interval(0.0, 0.5), Autoguidance(2.0))
    torch.testing.assert_close(denoise(X_T, t).x0, 2 * wanted - weak)


# Rescale


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_rescale_is_the_papers_formula(path, phi):
    t = at(0.6)
    wanted, other, _ = answers(path, X_T, t)
    guided = 5 * wanted - 4 * other
    # the unbiased std of two numbers is |a - b| / sqrt(2)
    ratio = (wanted[:, :1] - wanted[:, 1:]).abs() / (guided[:, :1] - guided[:, 1:]).abs()
    denoised = guide(Asked(path), ClassifierFree(5.0), Rescale(phi))(X_T, t)
    torch.testing.assert_close(denoised.x0, phi * ratio * guided + (1 - phi) * guided)


def test_a_full_rescale_gives_each_sample_the_std_of_the_wanted_one():
    wanted, other = normal(3, 4, 5, 5), normal(3, 4, 5, 5, seed=1)
    contrast = Contrast(RectifiedFlow(), constant(wanted), constant(other))
    denoised = guide(contrast, ClassifierFree(6.0), Rescale(1.0))(normal(3, 4, 5, 5), at(0.5))
    torch.testing.assert_close(denoised.x0.std((1, 2, 3)), wanted.std((1, 2, 3)))


def test_rescale_leaves_a_flat_sample_as_it_is():
    wanted, flat = normal(2, 1, 4, 4).sign(), torch.ones(2, 1, 4, 4).double()
    contrast = Contrast(RectifiedFlow(), constant(wanted), constant(wanted / 2 + 0.5))
    denoised = guide(contrast, ClassifierFree(-1.0), Rescale(0.7))(flat, at(0.5))
    assert torch.equal(denoised.x0, flat)  # 2 other - wanted


# Thresholds


def test_clip_and_dynamic_threshold_on_known_numbers():
    x0 = torch.tensor([[0.5, -4.0, 2.0, 1.0, -1.0], [0.1, 0.2, -0.3, 0.4, 0.5]]).double()
    contrast = Contrast(RectifiedFlow(), constant(x0))
    clipped = torch.tensor([[0.5, -1.0, 1.0, 1.0, -1.0], [0.1, 0.2, -0.3, 0.4, 0.5]]).double()
    assert torch.equal(guide(contrast, Clip())(x0, at(0.5)).x0, clipped)
    # the 0.75 quantile of the sizes is 2 in the first sample, and 0.4, under the limit, in the second
    squeezed = torch.tensor([[0.25, -1.0, 1.0, 0.5, -0.5], [0.1, 0.2, -0.3, 0.4, 0.5]]).double()
    torch.testing.assert_close(guide(contrast, DynamicThreshold(0.75))(x0, at(0.5)).x0, squeezed)
    to_limit = torch.tensor([[0.375, -1.5, 1.5, 0.75, -0.75], [0.1, 0.2, -0.3, 0.4, 0.5]]).double()
    torch.testing.assert_close(guide(contrast, DynamicThreshold(0.75, limit=1.5))(x0, at(0.5)).x0, to_limit)


def test_half_precision_is_thresholded_too():
    x0 = torch.tensor([[0.5, -4.0, 2.0, 1.0, -1.0]], dtype=torch.bfloat16)
    squeezed = guide(Contrast(RectifiedFlow(), constant(x0)), DynamicThreshold(0.75))(x0, at(0.5)).x0
    assert torch.equal(squeezed, torch.tensor([[0.25, -1.0, 1.0, 0.5, -0.5]], dtype=torch.bfloat16))


# Autoguidance


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_autoguidance_follows_the_density_it_stands_for(path):
    """The score of p_wanted^w / p_weak^(w - 1)."""
    t, scale = at(0.6), 2.5

    def log_p(x):
        return scale * log_density(TILTED, path, x, t) - (scale - 1) * log_density(WEAK, path, x, t)

    contrast = Asked(path)
    torch.testing.assert_close(guide(contrast, Autoguidance(scale))(X_T, t).x0, x0_of_density(log_p, path, X_T, t))
    assert contrast.calls() == {"wanted": 1, "weak": 1}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_autoguidance_and_classifier_free_guidance_add_in_any_order(order):
    path, t = RectifiedFlow(), at(0.6)
    rules = [ClassifierFree(3.0), Autoguidance(2.5)]
    wanted, other, weak = answers(path, X_T, t)
    expected = wanted + 2 * (wanted - other) + 1.5 * (wanted - weak)
    torch.testing.assert_close(guide(Asked(path), *(rules[i] for i in order))(X_T, t).x0, expected)


# Channels and whole trajectories


def test_channels_past_the_count_are_the_wanted_ones():
    wanted, other = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1)
    contrast = Contrast(RectifiedFlow(), constant(wanted), constant(other))
    x0 = guide(contrast, ClassifierFree(4.0), Channels(3))(wanted, at(0.5)).x0
    torch.testing.assert_close(x0[:, :3], (4 * wanted - 3 * other)[:, :3])
    assert torch.equal(x0[:, 3:], wanted[:, 3:])


def test_a_negative_condition_is_another_other():
    path, t = RectifiedFlow(), at(0.5)
    wanted, _, weak = answers(path, X_T, t)
    contrast = Contrast(path, TILTED.denoiser(path), WEAK.denoiser(path))
    torch.testing.assert_close(guide(contrast, ClassifierFree(3.0))(X_T, t).x0, 3 * wanted - 2 * weak)


def test_guidance_of_two_gaussians_of_one_covariance_moves_the_mean():
    """Guided sampling as a whole is then sampling from the Gaussian of mean w m + (1 - w) m'."""
    path, scale = RectifiedFlow(), 2.5
    moved = type(ROUND)(ROUND.mean + torch.tensor([0.4, 0.2]).double(), ROUND.covariance)
    target = type(ROUND)(scale * moved.mean + (1 - scale) * ROUND.mean, ROUND.covariance)
    contrast = Contrast(path, moved.denoiser(path), ROUND.denoiser(path))
    guided = DDIM(20).sample(guide(contrast, ClassifierFree(scale)), path, X_T, forbidden_noise)
    alone = DDIM(20).sample(target.denoiser(path), path, X_T, forbidden_noise)
    torch.testing.assert_close(guided, alone)
