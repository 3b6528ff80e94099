import math

import pytest
import torch
from diffusion_cases import (
    PATHS,
    TILTED,
    TWO_MODES,
    NoiseSource,
    WhiteNoise,
    forbidden_noise,
    name,
    normal,
    sliced_wasserstein,
    whitened,
)
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.paths import EDM, VE, Cosine, Linear, NoisePath, RectifiedFlow, level, levels
from ldm.diffusion.samplers import (
    DDIM,
    AnnealedLangevin,
    Euler,
    EulerAncestral,
    EulerMaruyama,
    PredictorCorrector,
    Sampler,
)
from ldm.diffusion.samplers.predictor_corrector import langevin, reverse_diffusion
from ldm.diffusion.samplers.renoise import renoise
from ldm.diffusion.spacings import Linspace

every_path = pytest.mark.parametrize("path", PATHS, ids=name)
FEW = [Cosine(), RectifiedFlow(), EDM()]
COUNT = 900


def covariance_error(sampler: Sampler, path: NoisePath) -> float:
    """How far the law of what the sampler returns is from the data's, by its covariance, on a Gaussian.

    What the noise does to the covariance is computed, not drawn: the draws are uncorrelated.
    """
    eps = whitened(COUNT)
    x = sampler.sample(TILTED.denoiser(path), path, eps, WhiteNoise(eps))
    return float((torch.cov(x.T) - TILTED.covariance).abs().max())


# --- Euler ancestral


@every_path
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_euler_ancestral_is_ddim(path, eta):
    eps = normal(16, 2)
    one = EulerAncestral(15, eta).steps(TWO_MODES.denoiser(path), path, path.start(eps), NoiseSource(eps))
    other = DDIM(15, eta).steps(TWO_MODES.denoiser(path), path, path.start(eps), NoiseSource(eps))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-9, atol=1e-9)


def test_euler_ancestral_without_eta_draws_nothing():
    EulerAncestral(5, eta=0.0).sample(TWO_MODES.denoiser(EDM()), EDM(), normal(4, 2), forbidden_noise)


@pytest.mark.parametrize("eta", [0.7, 1.0, 3.0])
def test_euler_ancestral_is_that_of_k_diffusion(eta):
    # On sigma alone: sigma_up = min(s, eta sqrt(s^2 (t^2 - s^2) / t^2)), then Euler to sigma_down.
    path, x, x0, z = EDM(), 10 * normal(8, 2), normal(8, 2, seed=1), normal(8, 2, seed=2)
    t, s = level(path, 0.1), level(path, 0.06)
    up = min(s.sigma, eta * math.sqrt(s.sigma**2 * (t.sigma**2 - s.sigma**2) / t.sigma**2))
    down = math.sqrt(s.sigma**2 - up**2)
    expected = x + (x - x0) / t.sigma * (down - t.sigma) + 1.01 * up * z
    moved = EulerAncestral(10, eta, s_noise=1.01).move(x, x0, t, s, lambda: z)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


# --- Euler-Maruyama


def test_euler_maruyama_is_the_published_sde():
    # Song et al., eq. 6, with f = -pi/2 tan(pi t / 2) x and g^2 = pi tan(pi t / 2) of the cosine path.
    path, x, x0, z = Cosine(), normal(8, 2), normal(8, 2, seed=1), normal(8, 2, seed=2)
    t, s = level(path, 0.6), level(path, 0.59)
    f, g2 = -math.pi / 2 * math.tan(0.3 * math.pi), math.pi * math.tan(0.3 * math.pi)
    score = -(x - t.alpha * x0) / t.sigma**2
    expected = x - (f * x - g2 * score) * 0.01 + math.sqrt(0.01 * g2) * z
    torch.testing.assert_close(EulerMaruyama().move(x, x0, t, s, lambda: z), expected, rtol=0, atol=1e-10)


def test_euler_maruyama_is_sits_sde_on_rectified_flow():
    # Ma et al.: drift u - w/2 score with w = sigma = t (their time runs the other way), u = eps - x0.
    path, x, x0, z = RectifiedFlow(), normal(8, 2), normal(8, 2, seed=1), normal(8, 2, seed=2)
    t, s = level(path, 0.6), level(path, 0.58)
    eps = (x - 0.4 * x0) / 0.6
    expected = x - 0.02 * (eps - x0 + 0.6 / 2 * eps / 0.6) + math.sqrt(0.6 * 0.02) * z
    torch.testing.assert_close(EulerMaruyama(10, "sigma").move(x, x0, t, s, lambda: z), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", FEW, ids=name)
def test_euler_maruyama_without_diffusion_is_euler(path):
    eps = normal(8, 2)
    one = EulerMaruyama(12, scale=0).sample(TWO_MODES.denoiser(path), path, eps, forbidden_noise)
    torch.testing.assert_close(one, Euler(12).sample(TWO_MODES.denoiser(path), path, eps, forbidden_noise))


def test_euler_maruyama_starts_without_noise_where_nothing_but_noise_is_left():
    path, x, x0 = RectifiedFlow(), normal(8, 2), normal(8, 2, seed=1)
    moved = EulerMaruyama().move(x, x0, level(path, 1.0), level(path, 0.9), forbidden_noise)
    torch.testing.assert_close(moved, x - 0.1 * (x - x0))


def test_euler_maruyama_replaces_no_more_noise_than_there_is():
    # g^2 h = 2 t h / (1 - t) = 1.96 here, over sigma^2 = 0.96: held at it, so that half of eps stays.
    path, x, x0, z = RectifiedFlow(), normal(8, 2), normal(8, 2, seed=1), normal(8, 2, seed=2)
    eps = (x - 0.02 * x0) / 0.98
    moved = EulerMaruyama().move(x, x0, level(path, 0.98), level(path, 0.96), lambda: z)
    torch.testing.assert_close(moved, x - 0.02 * (eps - x0) - 0.98 / 2 * eps + 0.98 * z, rtol=0, atol=1e-10)


# --- predictor and corrector


def test_the_predictor_is_the_published_reverse_diffusion():
    # Song et al., algorithms 2 and 3, from sigma and from beta alone.
    x, x0, z = normal(8, 2), normal(8, 2, seed=1), normal(8, 2, seed=2)
    t, s = level(VE(), 0.7), level(VE(), 0.65)
    score, grown = -(x - x0) / t.sigma**2, t.sigma**2 - s.sigma**2
    moved = reverse_diffusion(x, x0, t, s, lambda: z)
    torch.testing.assert_close(moved, x + grown * score + math.sqrt(grown) * z, rtol=1e-10, atol=1e-10)
    path, k = Linear(), 600
    beta = float(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[k])
    t, s = level(path, (k + 1) / 1000), level(path, k / 1000)
    score = -(x - t.alpha * x0) / t.sigma**2
    moved = reverse_diffusion(x, x0, t, s, lambda: z)
    expected = (2 - math.sqrt(1 - beta)) * x + beta * score + math.sqrt(beta) * z
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("step_size", [0.1, 1.0])
@pytest.mark.parametrize("path", [Cosine(), VE()], ids=name)
def test_langevin_steps_have_the_law_they_should(path, step_size):
    # On N(0, variance): a step is x -> k x + c z, at rest at c^2 / (1 - k^2) = v / (1 - step_size sigma^2 / (4 v)).
    t, variance, one, none = level(path, 0.4), 0.5, torch.ones(1).double(), torch.zeros(1).double()
    seen = t.alpha**2 * variance + t.sigma**2
    kept = float(langevin(one, t.alpha * variance / seen * one, t, step_size, lambda: none))
    added = float(langevin(none, none, t, step_size, lambda: one))
    assert added**2 / (1 - kept**2) == pytest.approx(seen / (1 - step_size * t.sigma**2 / (4 * seen)))


def test_the_corrector_is_a_step_of_the_stated_size():
    path, x, z = Cosine(), normal(8, 2), normal(8, 2, seed=2)
    drawn = iter([torch.zeros(8, 2).double(), z])
    first = next(PredictorCorrector(4, snr=0.1).steps(lambda x_t, t: Denoised(x_t.sin()), path, x, lambda: next(drawn)))
    t, s = levels(path, [path.t_max, first.t])
    there = reverse_diffusion(x, x.sin(), t, s, torch.zeros(8, 2).double)
    size = 2 * (0.1 * s.sigma) ** 2  # with |score| = |z| / sigma, algorithm 4
    expected = there - size * (there - s.alpha * there.sin()) / s.sigma**2 + math.sqrt(2 * size) * z
    torch.testing.assert_close(first.x, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", [Cosine(), VE()], ids=name)
def test_corrections_mend_the_law(path):
    plain, mended = (covariance_error(PredictorCorrector(30, corrections=n, spacing=Linspace()), path) for n in (0, 6))
    assert mended < plain / 2


@pytest.mark.parametrize(
    "make",
    [
        lambda n: EulerMaruyama(n, spacing=Linspace()),
        lambda n: EulerMaruyama(n, "sigma", 2.0, Linspace()),
        lambda n: PredictorCorrector(n, corrections=0, spacing=Linspace()),
    ],
    ids=["path", "sigma", "predictor"],
)
@pytest.mark.parametrize("path", FEW, ids=name)
def test_the_law_comes_nearer_with_more_steps(make, path):
    errors = [covariance_error(make(n), path) for n in (50, 200)]
    assert errors[1] < errors[0] / 2.5
    assert errors[1] < 0.05


# --- annealed Langevin


def test_annealed_langevin_is_algorithm_1():
    # Song and Ermon 2019: a_i = e sigma_i^2 / sigma_L^2, T steps at each of L levels; then the estimate.
    path, x = EDM(), 80 * normal(8, 2)
    source, sampler = NoiseSource(x), AnnealedLangevin(6, 3, 0.2, Linspace())
    found = list(sampler.steps(TWO_MODES.denoiser(path), path, x, NoiseSource(x)))
    times = Linspace().times(6, path)
    e = 0.2 * float(path.sigma(times[-1])) ** 2
    for t in times:
        a = e * path.sigma(t) ** 2 / path.sigma(times[-1]) ** 2
        for _ in range(3):
            score = (TWO_MODES.denoiser(path)(x, t).x0 - x) / path.sigma(t) ** 2
            x = x + a / 2 * score + a.sqrt() * source()
    torch.testing.assert_close(found[-1].x, TWO_MODES.denoiser(path)(x, times[-1]).x0, rtol=0, atol=1e-10)
    assert [step.index for step in found] == list(range(6))


@pytest.mark.parametrize("path", [EDM(), VE()], ids=name)
def test_annealed_langevin_recovers_a_gaussian_and_a_mixture(path):
    assert covariance_error(AnnealedLangevin(80), path) < 0.08
    eps = whitened(1500)
    x = AnnealedLangevin(80).sample(TWO_MODES.denoiser(path), path, eps, NoiseSource(eps))
    assert sliced_wasserstein(x, TWO_MODES.draw(1500)) < 0.08


@pytest.mark.parametrize("path", [Cosine(), RectifiedFlow(), Linear()], ids=name)
def test_annealed_langevin_refuses_a_path_whose_data_fade(path):
    with pytest.raises(ValueError, match="use PredictorCorrector"):
        AnnealedLangevin(5).check(path)
    with pytest.raises(ValueError, match="use PredictorCorrector"):
        AnnealedLangevin(5).sample(TWO_MODES.denoiser(path), path, normal(4, 2), NoiseSource(normal(4, 2)))


# --- back up


@every_path
def test_renoising_is_the_paths_own(path):
    # q(x_t | x_s) after q(x_s | x_0) is q(x_t | x_0): what is kept, and the variance of all noise together.
    one, none = torch.ones(1).double(), torch.zeros(1).double()
    s, t = levels(path, [0.4, 0.8])
    kept, added = float(renoise(one, s, t, lambda: none)), float(renoise(none, s, t, lambda: one))
    assert kept * s.alpha == pytest.approx(t.alpha)
    assert (kept * s.sigma) ** 2 + added**2 == pytest.approx(t.sigma**2)
    assert float(renoise(none, s, t, lambda: one, std=0.5)) == pytest.approx(added / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EulerAncestral(eta=-0.1), "share of noise"),
        (lambda: EulerAncestral(s_noise=math.inf), "s_noise"),
        (lambda: EulerMaruyama(diffusion="constant"), "choose one of path, sigma"),
        (lambda: EulerMaruyama(scale=-1), "factor"),
        (lambda: PredictorCorrector(snr=0), "0.16 is usual"),
        (lambda: PredictorCorrector(corrections=-1), "corrections"),
        (lambda: AnnealedLangevin(langevin_steps=0), "at least 1"),
        (lambda: AnnealedLangevin(step_size=2), "stable"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_sampler_here_writes_into_what_the_noise_source_gives():
    fixed = normal(8, 2)
    before = fixed.clone()

    def again() -> Tensor:
        return fixed

    for sampler in (EulerAncestral(3), EulerMaruyama(3), PredictorCorrector(3), AnnealedLangevin(3)):
        sampler.sample(TWO_MODES.denoiser(VE()), VE(), normal(8, 2, seed=1), again)
    assert torch.equal(fixed, before)
