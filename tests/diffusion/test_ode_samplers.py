import math
from itertools import pairwise

import pytest
import torch
from diffusion_cases import ON_A_LINE, ROUND, TILTED, TWO_MODES, NoiseSource, forbidden_noise, name, normal, whitened
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.paths import EDM, VE, Cosine, Linear, NoisePath, RectifiedFlow, level
from ldm.diffusion.samplers import RK4, DormandPrince, Euler, Heun, Sampler
from ldm.diffusion.samplers.euler import velocity
from ldm.diffusion.spacings import Linspace

SMOOTH = [Cosine(), RectifiedFlow(), EDM()]


def error_at_t_min(sampler: Sampler, path: NoisePath) -> float:
    """Root mean square distance from the exact ODE at the last time over 0, on a Gaussian."""
    x = path.start(normal(64, 2))
    *_, last, _ = sampler.steps(ROUND.denoiser(path), path, x, forbidden_noise)
    assert last.t == pytest.approx(path.t_min)
    return float((last.x - ROUND.transport(path, x, end=last.t)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("sampler", "expected", "within", "counts"), [(Heun, 2, 0.15, (40, 80)), (RK4, 4, 0.25, (80, 160))], ids=name
)
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_the_order_of_convergence(sampler, expected, within, counts, path):
    errors = [error_at_t_min(sampler(n + 1, spacing=Linspace()), path) for n in counts]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=within)


def test_a_higher_order_is_worth_its_calls():
    # 40 calls each
    path = RectifiedFlow()
    errors = [
        error_at_t_min(s, path) for s in (Euler(41, Linspace()), Heun(21, spacing=Linspace()), RK4(11, Linspace()))
    ]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10


@pytest.mark.parametrize("path", [*SMOOTH, VE(), Linear()], ids=name)
def test_dormand_prince_is_exact_to_its_tolerance(path):
    assert error_at_t_min(DormandPrince(5, rtol=1e-9, atol=1e-9, spacing=Linspace()), path) < 1e-6


def test_dormand_prince_takes_more_calls_for_less_error():
    path, x = Cosine(), normal(16, 1)
    found = []
    for tolerance in (1e-3, 1e-6):
        asked: list[float] = []

        def denoise(x_t: Tensor, t: Tensor, asked: list[float] = asked) -> Denoised:
            asked.append(float(t))
            return ON_A_LINE.denoiser(path)(x_t, t)

        sampler = DormandPrince(3, rtol=tolerance, atol=tolerance, spacing=Linspace())
        *_, last, _ = sampler.steps(denoise, path, path.start(x), forbidden_noise)
        error = float((last.x - ON_A_LINE.transport(path, path.start(x), end=last.t)).abs().max())
        found.append((len(asked), error))
        assert path.t_min - 1e-12 < min(asked) < max(asked) < path.t_max + 1e-12
    assert found[1][0] > 1.5 * found[0][0]
    assert found[1][1] < 1e-4 < found[0][1] * 100


def test_dormand_prince_keeps_the_worst_image_within_its_tolerance():
    # One image between two modes among 300 whose way is plain: by a mean over the batch it would miss by 0.009.
    path = RectifiedFlow()
    eps = torch.cat([torch.full((1, 1), -0.4), torch.full((300, 1), 3.0)]).double()
    first, _ = DormandPrince(2, 1e-4, 1e-4, Linspace()).steps(ON_A_LINE.denoiser(path), path, eps, forbidden_noise)
    exact = ON_A_LINE.transport(path, eps[:1], end=first.t)
    torch.testing.assert_close(first.x[:1], exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("s_churn", [0.0, 40.0])
def test_heun_on_the_edm_path_is_algorithm_2(s_churn):
    # Karras et al., algorithm 2 with the grid of eq. 5, in sigma and x alone.
    path, n, s_tmin, s_tmax, s_noise = EDM(), 18, 0.05, 50.0, 1.003
    start, source, again = normal(16, 2), NoiseSource(normal(16, 2)), NoiseSource(normal(16, 2))
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    sigmas = [(high + i / (n - 1) * (low - high)) ** 7 for i in range(n)] + [0.0]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return TWO_MODES.denoiser(path)(x, torch.tensor(sigma / 80, dtype=torch.float64)).x0

    x = path.start(start)
    for here, there in pairwise(sigmas):
        gamma = min(s_churn / n, math.sqrt(2) - 1) if s_tmin <= here <= s_tmax else 0.0
        hat = here + gamma * here
        if gamma > 0:
            x = x + math.sqrt(hat**2 - here**2) * s_noise * source()
        d = (x - denoise(x, hat)) / hat
        after = x + (there - hat) * d
        if there > 0:
            after = x + (there - hat) * (d + (after - denoise(after, there)) / there) / 2
        x = after
    heun = Heun(n, s_churn, s_tmin, s_tmax, s_noise, Linspace())
    torch.testing.assert_close(heun.sample(TWO_MODES.denoiser(path), path, start, again), x, rtol=0, atol=1e-9)
    assert source.calls == again.calls
    assert (again.calls > 0) == (s_churn > 0)


@pytest.mark.parametrize("path", [Cosine(), Linear(), RectifiedFlow(), VE()], ids=name)
def test_churn_goes_up_in_noise_and_keeps_the_law(path):
    heun, t = Heun(100, s_churn=25), level(path, 0.5)
    hat = heun.churned(path, t, 100)
    assert hat.sigma / hat.alpha == pytest.approx(1.25 * t.sigma / t.alpha)
    assert Heun(100, s_churn=25, s_tmax=1e-9).churned(path, t, 100) is t
    assert heun.churned(path, level(path, path.t_max), 100).t == path.t_max
    assert path.t_max * 0.9999 < heun.churned(path, level(path, path.t_max * 0.9999), 100).t <= path.t_max
    eps = whitened(1000)
    x = heun.sample(TILTED.denoiser(path), path, eps, NoiseSource(eps))
    torch.testing.assert_close(x.mean(0), TILTED.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(x.T), TILTED.covariance, rtol=0, atol=0.06)


def test_the_slope_in_the_angle_is_the_ode():
    # dz/da da/dt = d(x / hypot)/dt: what DormandPrince integrates is the path's own ODE, here on a general path.
    path, x, x0, t, step = RectifiedFlow(), normal(4, 2), normal(4, 2, seed=1), 0.3, 1e-6
    here, there = level(path, t), level(path, t + step)
    moved = x + step * velocity(x, x0, here)
    scale, after = math.hypot(here.alpha, here.sigma), math.hypot(there.alpha, there.sigma)
    angle, angle_after = math.atan2(here.sigma, here.alpha), math.atan2(there.sigma, there.alpha)
    slope = (math.cos(angle) * x / scale - x0) / math.sin(angle)
    torch.testing.assert_close((moved / after - x / scale) / (angle_after - angle), slope, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Heun(s_churn=-1), "s_churn"),
        (lambda: Heun(s_tmin=2, s_tmax=1), "s_tmin <= s_tmax"),
        (lambda: Heun(s_noise=math.nan), "s_noise"),
        (lambda: DormandPrince(rtol=0), "tolerances"),
        (lambda: DormandPrince(atol=math.inf), "tolerances"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
