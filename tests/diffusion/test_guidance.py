import math

import pytest
import torch
from diffusion_cases import PATHS, ROUND, TILTED, inner_times, name, normal
from guidance_cases import RULES, SOME_PATHS, Asked, answers, at, in_company

from ldm.diffusion import Denoised
from ldm.diffusion.guidance import (
    APG,
    Autoguidance,
    CFGPlusPlus,
    CFGZeroStar,
    Channels,
    ClassifierFree,
    ClassifierGuidance,
    Clip,
    Contrast,
    DynamicThreshold,
    Interval,
    Rescale,
    check_rules,
    guide,
)
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


def test_the_scale_may_depend_on_t():
    path, x_t = Cosine(), normal(8, 2)
    wanted, other, _ = answers(path, x_t, at(0.25))
    for rule in (ClassifierFree(lambda t: 1 + 8 * t), ClassifierFree(9.0, scale_at_data=1.0)):
        guided_x0 = guide(Asked(path), rule)(x_t, at(0.25)).x0
        torch.testing.assert_close(guided_x0, other + 3 * (wanted - other))  # 1 + 8 / 4
    with pytest.raises(ValueError, match="leave that out"):
        ClassifierFree(lambda t: 2.0, scale_at_data=1.0)


@pytest.mark.parametrize(("batched", "calls"), [(True, {"both": 1}), (False, {"wanted": 1, "other": 1})])
def test_wanted_and_other_are_asked_once_a_state_by_all_rules_together(batched, calls):
    contrast = Asked(Cosine(), batched)
    rules = [ClassifierFree(3.0), Autoguidance(), Rescale(), Channels(1), Interval(), Clip(), DynamicThreshold()]
    guide(contrast, *rules)(normal(64, 2), at(0.4))
    assert contrast.calls() == {**calls, "weak": 1}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.needs_other], ids=name)
def test_a_rule_asks_for_wanted_and_other_in_one_pass(rule):
    contrast = Asked(Cosine())
    guide(contrast, rule())(normal(64, 2), at(0.4))
    assert contrast.calls() == {"both": 1}


OFF = [
    [ClassifierFree(1.0)],
    [Autoguidance(1.0)],
    [APG(1.0)],
    [CFGZeroStar(1.0, zero_init=0.0)],
    [ClassifierGuidance(lambda x_t, t: x_t, scale=0.0)],
    [Clip(-math.inf, math.inf)],
    [DynamicThreshold(limit=math.inf)],
    [ClassifierFree(7.0), Interval(0.9, 1.0)],
    [CFGPlusPlus(), Interval(0.0, 0.1)],
    [ClassifierFree(1.0), Rescale(1.0)],
]


@pytest.mark.parametrize("rules", OFF, ids=lambda rules: "-".join(map(name, rules)))
@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_guidance_that_is_off_is_bit_identical_and_asks_the_wanted_model_alone(rules, path):
    contrast, x_t = Asked(path), 3 * normal(64, 2)
    off = guide(contrast, *rules)(x_t, at(0.5))
    assert torch.equal(off.x0, TILTED.denoiser(path)(x_t, at(0.5)).x0)
    assert off.x_t is None
    assert contrast.calls() == {"wanted": 1}


def test_rules_that_reach_no_value_leave_guidance_as_it_is():
    path, x_t = Cosine(), normal(64, 2)
    plain = guide(Asked(path), ClassifierFree(4.0))(x_t, at(0.5)).x0
    for rule in (Rescale(0.0), Channels(2), Interval()):
        assert torch.equal(guide(Asked(path), ClassifierFree(4.0), rule)(x_t, at(0.5)).x0, plain)


@pytest.mark.parametrize("rule", RULES, ids=name)
@pytest.mark.parametrize("path", SOME_PATHS, ids=name)
def test_every_rule_guides_and_holds_no_state_between_batches(rule, path):
    x_t, rules = 4 * normal(64, 2), in_company(rule, path)

    def batch():
        denoise = guide(Asked(path), *rules)
        return [denoise(x_t, at(t)) for t in (0.99, 0.5, 0.4)]

    settings = [dict(vars(made)) for made in rules]
    one, two = batch(), batch()
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first.x0, second.x0)
        assert first.x0.isfinite().all()
        assert (first.x_t is not None) == any(made.moves for made in rules)
    assert not torch.equal(one[1].x0, TILTED.denoiser(path)(x_t, at(0.5)).x0)
    assert [vars(made) for made in rules] == settings


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_every_rule_keeps_dtype_images_and_learned_variance(rule):
    path, x_t, variance = Cosine(), normal(2, 3, 4, 4, dtype=torch.float32), normal(2, 3, 4, 4, seed=1)

    def model(share):
        return lambda x_t, t: Denoised(share * x_t, variance)

    def classifier(x_t, t):
        return x_t.flatten(1)[:, :2] * t[:, None]

    rules = [ClassifierGuidance(classifier)] if rule is ClassifierGuidance else in_company(rule, path)
    contrast = Contrast(path, model(0.5), model(0.2), weak=model(0.1), labels=torch.tensor([0, 1]))
    for t in (at(0.5), torch.full((2,), 0.5)):
        denoised = guide(contrast, *rules)(x_t, t)
        assert denoised.x0.dtype == torch.float32
        assert denoised.x0.shape == x_t.shape
        assert denoised.variance is variance


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([ClassifierFree(), APG()], "ClassifierFree and APG .* keep one"),
        ([CFGPlusPlus(), CFGZeroStar()], "CFGPlusPlus and CFGZeroStar .* keep one"),
        ([Interval()], "Interval .* put ClassifierFree before it"),
        ([Rescale(), ClassifierFree()], "Rescale .* put ClassifierFree before it"),
        ([Channels()], "Channels .* put ClassifierFree before it"),
        ([CFGPlusPlus(), Rescale()], "CFGPlusPlus .* Rescale .* leave one of them out"),
        ([CFGPlusPlus(), Interval(), Autoguidance()], "CFGPlusPlus .* put Autoguidance before CFGPlusPlus"),
    ],
)
def test_rules_without_a_meaning_together_are_refused(rules, words):
    with pytest.raises(ValueError, match=words):
        guide(Asked(Cosine()), *rules)


def test_two_rules_that_move_the_state_are_refused():
    class Elsewhere(Clip):
        moves = True

    with pytest.raises(ValueError, match="CFGPlusPlus and Elsewhere both move the state"):
        check_rules([CFGPlusPlus(), Elsewhere()])


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [ClassifierFree(), Interval(), Rescale()],
        [APG(), Interval()],
        [ClassifierFree(), Autoguidance(), DynamicThreshold()],
        [Autoguidance(), CFGPlusPlus(), Interval()],
    ],
)
def test_rules_that_compose_are_accepted(rules):
    check_rules(rules)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.needs_other], ids=name)
def test_a_model_without_another_condition_is_refused(rule):
    with pytest.raises(ValueError, match=f"{rule.__name__} .* negative one"):
        guide(Contrast(Cosine(), TILTED.denoiser(Cosine())), rule())


def test_what_a_rule_lacks_is_named():
    contrast = Contrast(Cosine(), TILTED.denoiser(Cosine()))
    with pytest.raises(ValueError, match=r"Autoguidance .* earlier checkpoint"):
        guide(contrast, Autoguidance())
    with pytest.raises(ValueError, match=r"no classifier: .* ClassifierFree"):
        guide(contrast, ClassifierGuidance())
    with pytest.raises(ValueError, match="no labels"):
        guide(contrast, ClassifierGuidance(lambda x_t, t: x_t))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Interval(0.5, 0.5), "0 <= low < high <= 1"),
        (lambda: Interval(-0.1, 0.5), "0 <= low < high <= 1"),
        (lambda: Interval(0.1, 1.5), "0 <= low < high <= 1"),
        (lambda: Rescale(1.1), "phi=1.1"),
        (lambda: Clip(1.0, -1.0), "low < high"),
        (lambda: DynamicThreshold(0.0), "quantile=0.0"),
        (lambda: DynamicThreshold(limit=0.0), "limit=0.0"),
        (lambda: Autoguidance(math.nan), "1 is off"),
        (lambda: APG(math.inf), "1 is off"),
        (lambda: APG(eta=-0.5), "eta=-0.5"),
        (lambda: APG(norm_threshold=0.0), "norm_threshold=0.0"),
        (lambda: APG(momentum=-1.0), "momentum=-1.0"),
        (lambda: CFGPlusPlus(1.5), "use ClassifierFree"),
        (lambda: CFGZeroStar(math.nan), "1 is off"),
        (lambda: CFGZeroStar(zero_init=1.0), "zero_init=1.0"),
        (lambda: ClassifierGuidance(scale=math.nan), "not a finite number"),
        (lambda: Channels(0), "count=0"),
    ],
)
def test_settings_without_a_meaning_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
