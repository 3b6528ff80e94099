import math
from itertools import pairwise

import pytest
import torch
from diffusion_cases import (
    PATHS,
    ROUND,
    SAMPLERS,
    TILTED,
    TWO_MODES,
    NoiseSource,
    forbidden_noise,
    name,
    normal,
    sliced_wasserstein,
    whitened,
)
from torch import Tensor

from ldm.cli.by_name import describe
from ldm.diffusion import Denoised
from ldm.diffusion.paths import Cosine, Linear, NoisePath, RectifiedFlow, level
from ldm.diffusion.samplers import DDIM, DDPM, Euler, Sampler
from ldm.diffusion.samplers.ddpm import posterior_mean
from ldm.diffusion.spacings import Leading, Linspace, Trailing
from ldm.diffusion.variances import FixedLarge, FixedSmall

# Every leaf as it comes, then the leaves again by their other options.
MANY = [
    *(leaf(num_steps=100) for leaf in SAMPLERS),
    DDIM(100, eta=0.5),
    DDIM(100, eta=1.0),
    DDPM(100, FixedLarge()),
]
every_path = pytest.mark.parametrize("path", PATHS, ids=name)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
many_samplers = pytest.mark.parametrize("sampler", MANY, ids=describe)
POINTS = 3000


def order(errors: dict[int, float]) -> float:
    """The exponent p of error ~ num_steps^-p between the first and the last entry."""
    (n, first), (m, last) = next(iter(errors.items())), list(errors.items())[-1]
    return math.log(first / last) / math.log(m / n)


def errors_on_a_gaussian(sampler: type[Sampler], path: NoisePath, counts: list[int]) -> dict[int, float]:
    """Root mean square distance from the exact end points of the probability-flow ODE, by number of steps."""
    eps = normal(64, 2)
    exact = ROUND.transport(path, path.start(eps))
    denoise = ROUND.denoiser(path)
    runs = {n: sampler(num_steps=n).sample(denoise, path, eps, forbidden_noise) for n in counts}
    return {n: float((x - exact).square().mean().sqrt()) for n, x in runs.items()}


def test_the_leaves_are_found():
    assert {DDIM, DDPM, Euler} <= set(SAMPLERS)


@many_samplers
@every_path
def test_a_gaussian_is_recovered(sampler, path):
    # What is allowed: first order at 100 steps loses up to 0.06 of a variance of 0.8 (the smaller variance of a
    # step narrows most), the draws of 3000 points add 0.9 / sqrt(3000) = 0.016 to a mean at one standard error.
    eps = whitened(POINTS)
    x = sampler.sample(TILTED.denoiser(path), path, eps, NoiseSource(eps))
    torch.testing.assert_close(x.mean(0), TILTED.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(x.T), TILTED.covariance, rtol=0, atol=0.09)


@many_samplers
@every_path
def test_a_mixture_is_recovered(sampler, path):
    # Two sets of 3000 exact draws lie 0.015 to 0.042 apart; with every std 20 % too small it is 0.06, with the
    # first mode lost 0.4, with the two weights exchanged 0.6. The standard error of the first weight is 0.008.
    eps = whitened(POINTS)
    x = sampler.sample(TWO_MODES.denoiser(path), path, eps, NoiseSource(eps))
    assert sliced_wasserstein(x, TWO_MODES.draw(POINTS)) < 0.05
    nearest = (torch.cdist(x, TWO_MODES.means) / TWO_MODES.stds).argmin(1)
    for mode, (weight, mean, std) in enumerate(zip(TWO_MODES.weights, TWO_MODES.means, TWO_MODES.stds, strict=True)):
        own = x[nearest == mode]
        assert len(own) / POINTS == pytest.approx(float(weight), abs=0.03)
        torch.testing.assert_close(own.mean(0), mean, rtol=0, atol=0.05)
        torch.testing.assert_close(own.std(0), std.expand(2), rtol=0.18, atol=0)


@pytest.mark.parametrize("spacing", [Trailing(), Leading(), Linspace()], ids=name)
@every_sampler
@every_path
def test_every_spacing_ends_in_the_data(sampler, path, spacing):
    eps = whitened(1000)
    x = sampler(num_steps=50, spacing=spacing).sample(ROUND.denoiser(path), path, eps, NoiseSource(eps))
    torch.testing.assert_close(x.mean(0), ROUND.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cov(x.T), ROUND.covariance, rtol=0, atol=0.17)


def test_a_wrong_gaussian_would_be_noticed():
    # The tolerances above have teeth: data of another covariance, or a mean left out, fall outside of them.
    eps = whitened(POINTS)
    x = DDIM(100).sample(ROUND.denoiser(Cosine()), Cosine(), eps, forbidden_noise)
    assert (torch.cov(x.T) - TILTED.covariance).abs().max() > 0.09
    assert sliced_wasserstein(x, TWO_MODES.draw(POINTS)) > 0.05


# --- order of convergence


@pytest.mark.parametrize("sampler", [DDIM, Euler])
@pytest.mark.parametrize("path", [path for path in PATHS if path.num_steps is None], ids=name)
def test_first_order_in_continuous_time(sampler, path):
    errors = errors_on_a_gaussian(sampler, path, [40, 80, 160])
    assert order(errors) == pytest.approx(1, abs=0.05)
    assert errors[160] < 0.01


@pytest.mark.parametrize("sampler", [DDIM, Euler])
@pytest.mark.parametrize("path", [path for path in PATHS if path.num_steps is not None], ids=name)
def test_at_least_about_first_order_on_discrete_paths(sampler, path):
    # sigma ~ sqrt(t) near data, so the last steps are not yet in the regime where the order is 1 exactly;
    # and errors of opposite sign cancel in Euler's, which then falls faster. Counts divide T: strides are even.
    errors = errors_on_a_gaussian(sampler, path, [10, 20, 50, 100])
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert order(errors) > 0.8
    assert errors[100] < 0.02


# --- equalities


def test_ddim_and_euler_are_equal_on_rectified_flow():
    path, eps = RectifiedFlow(), normal(64, 2)
    ddim = DDIM(17).steps(TWO_MODES.denoiser(path), path, eps, forbidden_noise)
    euler = Euler(17).steps(TWO_MODES.denoiser(path), path, eps, forbidden_noise)
    for one, other in zip(ddim, euler, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-12)


@every_path
@pytest.mark.parametrize("spacing", [Trailing(), Leading(), Linspace()], ids=name)
def test_ddpm_is_ddim_with_all_noise_fresh(path, spacing):
    eps = normal(64, 2)
    ddpm = DDPM(20, FixedSmall(), spacing).steps(TWO_MODES.denoiser(path), path, eps, NoiseSource(eps))
    ddim = DDIM(20, 1.0, spacing).steps(TWO_MODES.denoiser(path), path, eps, NoiseSource(eps))
    for one, other in zip(ddpm, ddim, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-9)


def test_ddpm_is_the_published_posterior_at_full_length():
    # Ho et al., eq. 7, and their two variances, from the betas alone.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    x, x0, path = normal(4, 2, seed=1), normal(4, 2, seed=2), Linear()
    k = 600
    mean = bars[k - 1].sqrt() * betas[k] / (1 - bars[k]) * x0
    mean = mean + (1 - betas[k]).sqrt() * (1 - bars[k - 1]) / (1 - bars[k]) * x
    t, s = level(path, (k + 1) / 1000), level(path, k / 1000)
    torch.testing.assert_close(posterior_mean(x, x0, t, s), mean, rtol=0, atol=1e-10)
    small, large = (betas[k] * (1 - bars[k - 1]) / (1 - bars[k])).sqrt(), betas[k].sqrt()
    for variance, std in ((FixedSmall(), small), (FixedLarge(), large)):
        torch.testing.assert_close(DDPM(1000, variance).std(path, t, s, None), std, rtol=1e-9, atol=0)


def test_ddim_is_the_published_step():
    # Song et al., eq. 12, written in alpha_bar and eps.
    x, x0, path, eta = normal(4, 2, seed=1), normal(4, 2, seed=2), Linear(), 0.3
    t, s = level(path, 0.7), level(path, 0.5)
    bar_t, bar_s = t.alpha**2, s.alpha**2
    eps = (x - bar_t**0.5 * x0) / (1 - bar_t) ** 0.5
    std = eta * ((1 - bar_s) / (1 - bar_t)) ** 0.5 * (1 - bar_t / bar_s) ** 0.5
    expected = bar_s**0.5 * x0 + (1 - bar_s - std**2) ** 0.5 * eps + std
    moved = DDIM(50, eta).move(x, x0, t, s, lambda: torch.ones_like(x))
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


def test_euler_is_the_published_ode():
    # Song et al., eq. 13, f = -tan(pi t / 2) pi / 2 and g^2 = pi tan(pi t / 2) of the cosine path; score from x0.
    path, x = Cosine(), normal(8, 2)
    step = next(Euler(2).steps(lambda x_t, t: Denoised(x_t.sin()), path, x, forbidden_noise))
    t = torch.tensor(path.t_max, dtype=torch.float64)
    score = -(x - path.alpha(t) * x.sin()) / path.sigma(t) ** 2
    slope = math.tan(math.pi * path.t_max / 2) * math.pi / 2
    torch.testing.assert_close(step.x, x + (step.t - t) * (-slope * x - slope * score), rtol=0, atol=1e-9)


# --- the walk


@every_sampler
@every_path
def test_the_last_step_returns_x0_exactly(sampler, path):
    x = normal(8, 2)
    steps = list(sampler(num_steps=7).steps(ROUND.denoiser(path), path, x, NoiseSource(x)))
    assert torch.equal(steps[-1].x, steps[-1].x0)
    assert [step.index for step in steps] == list(range(7))
    assert {step.num_steps for step in steps} == {7}
    assert steps[-1].t == 0
    assert all(later.t < earlier.t for earlier, later in pairwise(steps))


@every_sampler
@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sampler_changes_neither_shape_nor_dtype(sampler, path, dtype):
    asked: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(t)
        return Denoised(0.5 * x_t)

    x = normal(3, 4, 2, 2, dtype=dtype)
    for step in sampler(num_steps=5).steps(denoise, path, x, NoiseSource(x)):
        assert step.x.dtype == step.x0.dtype == dtype
        assert step.x.shape == x.shape
        assert step.x.isfinite().all()
    assert all(t.shape == () and t.dtype == torch.float64 for t in asked)
    assert all((t >= path.snap(t) - 1e-7).all() and (t <= path.t_max + 1e-7).all() for t in asked)


@every_sampler
@every_path
def test_steps_do_not_write_into_their_input(sampler, path):
    x = normal(8, 2)
    before = x.clone()
    list(sampler(num_steps=3).steps(ROUND.denoiser(path), path, x, NoiseSource(x)))
    assert torch.equal(x, before)


def test_noise_is_drawn_between_steps_only():
    x = normal(8, 2)
    for sampler, draws in ((DDIM(10), 0), (DDIM(10, eta=0.2), 9), (DDPM(10), 9), (Euler(10), 0)):
        source = NoiseSource(x)
        sampler.sample(ROUND.denoiser(Cosine()), Cosine(), x, source)
        assert source.calls == draws


def test_too_many_steps_for_the_path_are_refused():
    x = normal(2, 2)
    with pytest.raises(ValueError, match="choose at most 10"):
        DDIM(11).sample(ROUND.denoiser(Linear()), Linear(num_steps=10), x, forbidden_noise)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(ValueError, match="choose from 0"):
        DDIM(eta=eta)
