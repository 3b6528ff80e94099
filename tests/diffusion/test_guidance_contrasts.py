"""The rules that take the place of classifier-free guidance, against closed forms written here."""

import pytest
import torch
from diffusion_cases import PATHS, forbidden_noise, name, normal
from guidance_cases import (
    SOME_PATHS,
    X_T,
    Asked,
    answers,
    at,
    classify,
)

from ldm.diffusion import Denoised
from ldm.diffusion.guidance import (
    APG,
    Autoguidance,
    CFGPlusPlus,
    CFGZeroStar,
    ClassifierFree,
    ClassifierGuidance,
    Contrast,
    guide,
)
from ldm.diffusion.paths import RectifiedFlow, level, levels
from ldm.diffusion.predictions import Velocity
from ldm.diffusion.samplers import DDIM, Euler
from ldm.diffusion.samplers.base import look

# APG


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_apg_that_drops_nothing_is_classifier_free(path):
    apg = guide(Asked(path), APG(4.0, eta=1.0, norm_threshold=None, momentum=0.0))
    free = guide(Asked(path), ClassifierFree(4.0))
    for t in (0.8, 0.4):
        torch.testing.assert_close(apg(X_T, at(t)).x0, free(X_T, at(t)).x0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_apg_is_the_papers_algorithm(path):
    scale, eta, limit, momentum = 5.0, 0.2, 0.4, -0.5
    denoise = guide(Asked(path), APG(scale, eta, limit, momentum))
    total = torch.zeros_like(X_T)
    cut = set()
    for t in (0.9, 0.7, 0.3):
        wanted, other, _ = answers(path, X_T, at(t))
        total = wanted - other + momentum * total
        norm = total.norm(dim=1, keepdim=True)
        cut |= set((norm > limit).flatten().tolist())
        update = total * (limit / norm).clamp(max=1)
        direction = wanted / wanted.norm(dim=1, keepdim=True)
        along = (update * direction).sum(1, keepdim=True) * direction
        expected = wanted + (scale - 1) * (update - along + eta * along)
        torch.testing.assert_close(denoise(X_T, at(t)).x0, expected, rtol=1e-10, atol=1e-10)
    assert cut == {True, False}  # both sides of the limit were met


def test_the_update_of_apg_is_orthogonal_to_the_wanted_x0():
    path, t = RectifiedFlow(), at(0.7)
    wanted, _, _ = answers(path, X_T, t)
    update = guide(Asked(path), APG(4.0))(X_T, t).x0 - wanted
    torch.testing.assert_close((update * wanted).sum(1), torch.zeros(64).double(), rtol=0, atol=1e-12)
    assert update.norm(dim=1).min() > 0


# CFG++


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_cfg_plus_plus_puts_the_noise_of_the_other_model_back(path):
    t = at(0.6)
    wanted, other, _ = answers(path, X_T, t)
    denoised = guide(Asked(path), CFGPlusPlus(0.3))(X_T, t)
    torch.testing.assert_close(denoised.x0, 0.3 * wanted + 0.7 * other)
    eps = path.implied_eps(X_T, other, t)
    torch.testing.assert_close(denoised.x_t, path.alpha(t) * denoised.x0 + path.sigma(t) * eps)


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0])
def test_a_ddim_step_under_cfg_plus_plus_is_one_under_classifier_free(path, scale):
    t, s = levels(path, [0.7, 0.55])
    omega = scale * s.alpha / (s.alpha - t.alpha * s.sigma / t.sigma)
    plus, free = (look(guide(Asked(path), rule), X_T, t.t) for rule in (CFGPlusPlus(scale), ClassifierFree(omega)))
    steps = [DDIM().move(*state, t, s, forbidden_noise) for state in (plus, free)]
    torch.testing.assert_close(*steps, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_ddim_under_cfg_plus_plus_is_the_papers_algorithm(path):
    sampler, x = DDIM(5), path.start(X_T)
    sampled = [step.x for step in sampler.steps(guide(Asked(path), CFGPlusPlus(0.6)), path, x, forbidden_noise)]
    for (t, s), ours in zip(sampler.intervals(path), sampled, strict=True):
        wanted, other, _ = answers(path, x, at(t.t))
        x0 = other + 0.6 * (wanted - other)
        x = s.alpha * x0 + s.sigma * (x - t.alpha * other) / t.sigma
        torch.testing.assert_close(ours, x)


def test_what_autoguidance_adds_is_in_the_state_of_cfg_plus_plus():
    path, t = RectifiedFlow(), at(0.6)
    wanted, other, weak = answers(path, X_T, t)
    denoised = guide(Asked(path), Autoguidance(2.0), CFGPlusPlus(0.6))(X_T, t)
    torch.testing.assert_close(denoised.x0, other + 0.6 * (wanted - other) + wanted - weak)
    torch.testing.assert_close(path.implied_eps(denoised.x_t, denoised.x0, t), path.implied_eps(X_T, other, t))


# CFG-Zero*


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_cfg_zero_star_is_the_papers_formula_on_velocities(path):
    t, scale = at(0.6), 3.0
    wanted, other, _ = (Velocity().from_x0(x0, X_T, t, path) for x0 in answers(path, X_T, t))
    best = (wanted * other).sum(1, keepdim=True) / (other * other).sum(1, keepdim=True)
    expected = (1 - scale) * best * other + scale * wanted
    guided = guide(Asked(path), CFGZeroStar(scale))(X_T, t).x0
    torch.testing.assert_close(Velocity().from_x0(guided, X_T, t, path), expected)
    assert not torch.allclose(guided, guide(Asked(path), ClassifierFree(scale))(X_T, t).x0)


def test_the_scale_of_cfg_zero_star_is_the_best_one():
    path, t = RectifiedFlow(), at(0.6)
    wanted, other, _ = (Velocity().from_x0(x0, X_T, t, path) for x0 in answers(path, X_T, t))
    guided = Velocity().from_x0(guide(Asked(path), CFGZeroStar(2.0))(X_T, t).x0, X_T, t, path)
    left = guided - wanted  # (scale - 1) (wanted - s other) is orthogonal to other where s is best
    torch.testing.assert_close((left * other).sum(1), torch.zeros(64).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [DDIM(25), Euler(25)], ids=name)
def test_nothing_moves_in_the_first_steps_of_cfg_zero_star(sampler):
    """Of 25 trailing steps on RectifiedFlow, 10 % are those at t = 1, 0.96 and 0.92."""
    path, contrast = RectifiedFlow(), Asked(RectifiedFlow())
    steps = list(sampler.steps(guide(contrast, CFGZeroStar(2.0, zero_init=0.1)), path, X_T, forbidden_noise))
    for step in steps[:3]:
        torch.testing.assert_close(step.x, X_T)
    assert contrast.calls() == {"both": 22}
    assert (steps[3].x - X_T).norm() > 0.1


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_the_x0_of_the_start_has_velocity_zero(path):
    t = at(path.t_max)
    x0 = guide(Asked(path), CFGZeroStar())(X_T, t).x0
    torch.testing.assert_close(Velocity().from_x0(x0, X_T, t, path), torch.zeros_like(X_T), rtol=0, atol=1e-9)


# Classifier guidance


@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
def test_an_exact_classifier_makes_the_unconditional_model_the_conditional_one(path, t):
    classifier = classify(path)
    with torch.inference_mode():
        x_t, labels = 1.5 * normal(64, 2), torch.arange(64) % 2

        def unconditional(x_t, t):
            shares = classifier(x_t, t.expand(64)).softmax(1)
            tilted, round_, _ = answers(path, x_t, t)
            return Denoised(shares[:, :1] * tilted + shares[:, 1:] * round_)

        contrast = Contrast(path, unconditional, labels=labels)
        guided = guide(contrast, ClassifierGuidance(classifier))(x_t, at(t)).x0
        tilted, round_, _ = answers(path, x_t, at(t))
        expected = torch.where(labels[:, None] == 0, tilted, round_)
        torch.testing.assert_close(guided, expected, rtol=1e-8, atol=1e-8)
        assert (unconditional(x_t, at(t)).x0 - expected).abs().max() > 1e-2


def test_classifier_guidance_adds_its_scale_times_the_gradient_to_the_score():
    path, t, scale = RectifiedFlow(), torch.full((64,), 0.4).double(), 7.0
    x = X_T.clone().requires_grad_()
    slope = torch.autograd.grad(classify(path)(x, t).log_softmax(1)[:, 0].sum(), x)[0]
    guided = guide(Asked(path), ClassifierGuidance(classify(path), scale))(X_T, t).x0
    score, before = ((0.6 * x0 - X_T) / 0.4**2 for x0 in (guided, answers(path, X_T, t)[0]))
    torch.testing.assert_close(score - before, scale * slope)


def test_pure_noise_is_not_guided_by_a_classifier():
    path, t = RectifiedFlow(), at(1.0)
    guided = guide(Asked(path), ClassifierGuidance(classify(path)))(X_T, t).x0
    assert level(path, 1.0).alpha == 0
    assert torch.equal(guided, answers(path, X_T, t)[0])
