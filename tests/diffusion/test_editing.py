import math

import pytest
import torch
from diffusion_cases import PATHS, ROUND, TILTED, NoiseSource, WhiteNoise, forbidden_noise, name, normal, whitened
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.editing import Inpaint, begin_at, noised_start, slerp
from ldm.diffusion.paths import EDM, VE, Cosine, Linear, NoisePath, RectifiedFlow
from ldm.diffusion.samplers import DDIM, DDPM, Euler, Heun, RePaint, Sampler
from ldm.diffusion.spacings import Leading, Linspace
from ldm.diffusion.variances import FixedLarge, FixedSmall

# --- between two noises


def test_slerp_goes_along_the_sphere():
    one, other = normal(5, 3, 4, 4), normal(5, 3, 4, 4, seed=1)
    other = other * (one.flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1))[:, None, None, None]
    torch.testing.assert_close(slerp(one, other, 0.0), one, rtol=0, atol=1e-12)
    torch.testing.assert_close(slerp(one, other, 1.0), other, rtol=0, atol=1e-12)
    weights = torch.linspace(0, 1, 5).double()
    between = slerp(one, other, weights)
    torch.testing.assert_close(between.flatten(1).norm(dim=1), one.flatten(1).norm(dim=1))
    angle = torch.acos(torch.cosine_similarity(one.flatten(1), other.flatten(1)))
    gone = torch.acos(torch.cosine_similarity(one.flatten(1), between.flatten(1)).clamp(-1, 1))
    torch.testing.assert_close(gone, weights * angle, rtol=0, atol=1e-6)


def test_slerp_does_not_bend_where_there_is_no_angle():
    one = normal(3, 8)
    torch.testing.assert_close(slerp(one, 3 * one, 0.5), 2 * one)
    torch.testing.assert_close(slerp(one, -one, 0.25), 0.5 * one)
    torch.testing.assert_close(slerp(one, torch.zeros_like(one), 0.25), 0.75 * one)
    nearly = one + 1e-9 * normal(3, 8, seed=1)
    torch.testing.assert_close(slerp(one, nearly, 0.5), one, rtol=0, atol=1e-8)
    assert slerp(one.float(), normal(3, 8, seed=1).float(), 0.3).dtype == torch.float32


# --- from an image


@pytest.mark.parametrize("path", [RectifiedFlow(), Cosine(), VE()], ids=name)
def test_strength_1_is_plain_sampling_in_law(path):
    # What is left of the image at t_max is at most 0.2 % of it, but on VE all of it, under noise 50 times as large.
    x0, eps = torch.full((1000, 2), 1.0).double(), whitened(1000)
    sampler = begin_at(DDIM(100), 1.0)
    start = noised_start(sampler, path, x0, eps)
    *_, last = sampler.steps(ROUND.denoiser(path), path, start, forbidden_noise)
    plain = DDIM(100).sample(ROUND.denoiser(path), path, eps, forbidden_noise)
    torch.testing.assert_close(last.x, plain, rtol=0, atol=0.03)


@pytest.mark.parametrize("make", [DDIM, lambda n: DDIM(n, eta=1.0), Heun], ids=["ddim", "ancestral", "heun"])
@pytest.mark.parametrize("path", [RectifiedFlow(), Linear()], ids=name)
def test_the_stronger_the_farther_from_the_image(make, path):
    sampler, x0 = make(50), torch.full((500, 2), 1.0).double()
    moved = []
    for strength in (0.02, 0.2, 0.5, 1.0):
        shorter = begin_at(sampler, strength)
        eps = whitened(500)
        *_, last = shorter.steps(ROUND.denoiser(path), path, noised_start(shorter, path, x0, eps), WhiteNoise(eps))
        moved.append(float((last.x - x0).square().mean().sqrt()))
    assert moved == sorted(moved)
    assert moved[0] < 0.15
    assert moved[-1] > 1


def test_a_shorter_walk_is_the_end_of_the_whole_one():
    path, sampler = Linear(), DDIM(10)
    shorter = begin_at(sampler, 0.5)
    assert sampler.spacing.times(10, path).tolist()[5:] == shorter.spacing.times(10, path).tolist()
    whole = list(sampler.steps(ROUND.denoiser(path), path, normal(8, 2), forbidden_noise))
    part = list(shorter.steps(ROUND.denoiser(path), path, whole[4].x, forbidden_noise))
    assert torch.equal(part[-1].x, whole[-1].x)
    assert [step.num_steps for step in part] == [5] * 5
    x0, eps = normal(8, 2), normal(8, 2, seed=1)
    half = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(noised_start(shorter, path, x0, eps), path.corrupt(x0, eps, half))


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, math.nan])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="choose over 0"):
        begin_at(DDIM(10), strength)


# --- with a part held

KNOWN, MASK = 1.2, torch.tensor([0.0, 1.0]).double()


def painted(sampler: Sampler, path: NoisePath, count: int = 1000) -> Tensor:
    """The second coordinate of a correlated Gaussian as inpainted beside the first: (count,)."""
    eps = whitened(count)
    known, noise = torch.tensor([KNOWN, math.nan]).double().expand(count, 2), WhiteNoise(eps)
    denoise = Inpaint(TILTED.denoiser(path), path, known, MASK, noise)
    x = sampler.sample(denoise, path, eps, noise)
    assert torch.equal(x[:, 0], known[:, 0])
    return x[:, 1]


def conditional() -> tuple[float, float]:
    """Mean and variance of the second coordinate where the first is known."""
    (a, b), (_, d) = TILTED.covariance.tolist()
    return float(TILTED.mean[1]) + b / a * (KNOWN - float(TILTED.mean[0])), d - b * b / a


@pytest.mark.parametrize("path", [Cosine(), RectifiedFlow(), EDM()], ids=name)
def test_repaint_comes_nearer_to_the_conditional_law_than_replacement(path):
    mean, variance = conditional()
    errors = []
    for resamplings in (1, 3, 10):
        x = painted(RePaint(60, 5, resamplings, FixedLarge()), path)
        errors.append(abs(float(x.mean()) - mean) + abs(float(x.var()) - variance))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.45 * errors[0]
    assert errors[-1] < 0.06


@pytest.mark.parametrize("sampler", [DDIM(20), DDPM(20), Euler(20), DDIM(20, eta=0.5)], ids=name)
def test_replacement_leans_the_right_way(sampler):
    # Nearer to the conditional mean than the model's own mean is.
    mean, _ = conditional()
    x = painted(sampler, Cosine())
    assert abs(float(x.mean()) - mean) < abs(float(TILTED.mean[1]) - mean)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_inpainting_replaces_the_known_part(path):
    known, x, t = normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1), torch.tensor(path.t_max / 2, dtype=torch.float64)
    mask = torch.tensor([[1.0, 0.0], [0.5, 1.0]]).double()
    eps, seen = normal(4, 3, 2, 2, seed=2), []

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        seen.append(x_t)
        return Denoised(0.5 * x_t, variance=x_t)

    answer = Inpaint(denoise, path, known, mask, lambda: eps)(x, t)
    there = path.corrupt(known, eps, t)
    expected = mask * x + (1 - mask) * there
    torch.testing.assert_close(answer.x_t, expected)
    torch.testing.assert_close(seen[0], expected)
    assert answer.variance is seen[0]
    assert torch.equal(answer.x0[..., 0, 1], known[..., 0, 1])
    assert torch.equal(answer.x0[..., 0, 0], 0.5 * x[..., 0, 0])
    torch.testing.assert_close(answer.x0[..., 1, 0], 0.25 * expected[..., 1, 0] + 0.5 * known[..., 1, 0])


def test_inpainting_keeps_what_a_rule_within_has_moved():
    path, x, known = Cosine(), normal(4, 2), normal(4, 2, seed=1)
    inner = lambda x_t, t: Denoised(x_t, x_t=x_t + 7)  # noqa: E731
    answer = Inpaint(inner, path, known, MASK, lambda: torch.zeros(4, 2).double())(x, torch.tensor(0.5).double())
    assert answer.x_t is not None
    torch.testing.assert_close(answer.x_t[:, 1], x[:, 1] + 7)
    torch.testing.assert_close(answer.x_t[:, 0], path.alpha(torch.tensor(0.5).double()) * known[:, 0])


@pytest.mark.parametrize(
    ("mask", "message"),
    [(torch.ones(3, 3), "same height and width"), (torch.full((4, 4), 1.5), "outside"), (-torch.ones(4, 4), "outside")],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        Inpaint(ROUND.denoiser(Cosine()), Cosine(), torch.zeros(2, 3, 4, 4), mask, forbidden_noise)


# --- RePaint's walk


@pytest.mark.parametrize(("steps", "jump", "times"), [(20, 5, 3), (21, 5, 2), (12, 1, 4), (30, 10, 10), (5, 10, 2)])
def test_the_walk_is_the_published_one(steps, jump, times):
    # The paper's figure of its schedule: from each multiple of `jump` below steps - jump, times - 1 jumps up.
    left = dict.fromkeys(range(0, steps - jump, jump), times - 1)
    t, wanted = steps - 1, [steps - 1]
    while t >= 0:
        if left.get(t, 0) > 0:
            left[t] -= 1
            t += jump
        else:
            t -= 1
        wanted.append(t)
    assert [steps - 1 - place for place in RePaint(steps, jump, times).visits(steps)] == wanted


def test_repaint_without_resampling_is_ddpm():
    path, eps = Cosine(), normal(16, 2)
    for variance in (FixedSmall(), FixedLarge()):
        one = RePaint(20, 4, 1, variance).sample(TILTED.denoiser(path), path, eps, NoiseSource(eps))
        assert torch.equal(one, DDPM(20, variance).sample(TILTED.denoiser(path), path, eps, NoiseSource(eps)))
    left_out = RePaint(20, 4, 1).sample(TILTED.denoiser(path), path, eps, NoiseSource(eps))
    assert torch.equal(left_out, one)


@pytest.mark.parametrize("spacing", [Linspace(), Leading()], ids=name)
@pytest.mark.parametrize("path", [Cosine(), RectifiedFlow(), Linear(), EDM()], ids=name)
def test_going_back_up_keeps_the_law(path, spacing):
    eps = whitened(1000)
    sampler = RePaint(100, 10, 4, spacing=spacing)
    x = sampler.sample(TILTED.denoiser(path), path, eps, WhiteNoise(eps))
    torch.testing.assert_close(x.mean(0), TILTED.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(torch.cov(x.T), TILTED.covariance, rtol=0, atol=0.06)


def test_a_step_of_repaint_is_one_call():
    path, eps, asked = Linear(), normal(4, 2), []

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(float(t))
        return Denoised(0.5 * x_t)

    steps = list(RePaint(20, 5, 3).steps(denoise, path, eps, NoiseSource(eps)))
    assert len(steps) == len(asked) == 20 + 2 * 3 * 5
    assert [step.index for step in steps] == list(range(50))
    assert {step.num_steps for step in steps} == {50}
    assert steps[-1].t == 0
    assert torch.equal(steps[-1].x, steps[-1].x0)


@pytest.mark.parametrize(("settings", "message"), [({"jump_length": 0}, "goes nowhere"), ({"resamplings": 0}, "walks")])
def test_a_walk_that_goes_nowhere_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RePaint(**settings)
