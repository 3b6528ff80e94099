"""What holds of every sampler on every path; each sampler's own formulas have a file of their own."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from diffusion_cases import (
    ON_A_LINE,
    PATHS,
    ROUND,
    SAMPLERS,
    SIXTEEN,
    SPACINGS,
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

from ldm.cli.by_name import describe
from ldm.diffusion import Denoise, Denoised
from ldm.diffusion.paths import Cosine, Linear, NoisePath, RectifiedFlow
from ldm.diffusion.paths.betas import Constant
from ldm.diffusion.paths.ve import VE
from ldm.diffusion.samplers import (
    DDIM,
    DDPM,
    DEIS,
    PLMS,
    PNDM,
    DPMSolver,
    DPMSolverPP,
    Euler,
    Sampler,
    SDEDPMSolverPP,
    UniPC,
)
from ldm.diffusion.samplers.annealed_langevin import AnnealedLangevin
from ldm.diffusion.samplers.dormand_prince import DormandPrince
from ldm.diffusion.samplers.heun import Heun
from ldm.diffusion.samplers.repaint import RePaint
from ldm.diffusion.samplers.rk4 import RK4
from ldm.diffusion.spacings import Leading, Linspace
from ldm.diffusion.variances import FixedLarge

SHARP = (DEIS, DormandPrince, DPMSolver, DPMSolverPP, PLMS, PNDM, RK4, UniPC)  # of higher order, without noise
# The leaves again by their other options.
MORE = [
    DDIM(60, eta=0.5),
    DDIM(60, eta=1.0),
    DDPM(60, FixedLarge()),
    DPMSolver(30, order=1),
    DPMSolver(30, order=3),
    DPMSolverPP(30, order=1),
    DPMSolverPP(30, order=3),
    DPMSolverPP(30, order=2, multistep=False),
    DPMSolverPP(30, order=3, multistep=False),
    DEIS(30, order=1),
    DEIS(30, order=4),
    UniPC(30, order=1),
    UniPC(30, order=3),
    UniPC(30, variant="bh1"),
    UniPC(30, corrector=False),
    SDEDPMSolverPP(60, order=1),
    Heun(60, s_churn=20),
]
ROUGH = {DormandPrince: {"rtol": 0.05, "atol": 0.05}}  # fewer calls, for tests that ask for no precision
every_path = pytest.mark.parametrize("path", PATHS, ids=name)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
POINTS = 400  # enough for 199 uncorrelated draws; see WhiteNoise


def make(sampler: type[Sampler], path: NoisePath, num_steps: int, **options: object) -> Sampler:
    """The sampler for this path; skips the test where it refuses the path."""
    made = sampler(num_steps=num_steps, **options)
    try:
        made.check(path)
    except ValueError as reason:
        pytest.skip(str(reason))
    return made


@cache
def tilted_denoiser(path: NoisePath) -> Denoise:
    return TILTED.denoiser(path)


def miss(sampler: Sampler, path: NoisePath) -> tuple[float, float]:
    """How far mean and covariance end from those of x0 at the last time looked at, which is all a sampler returns."""
    eps = whitened(POINTS)
    with torch.no_grad():
        x = sampler.sample(tilted_denoiser(path), path, eps, WhiteNoise(eps))
    covariance = TILTED.estimated(path, float(sampler.spacing.times(sampler.num_steps, path)[-1]))
    return float((x.mean(0) - TILTED.mean).abs().max()), float((torch.cov(x.T) - covariance).abs().max())


def test_the_leaves_are_found():
    assert {DDIM, DDPM, Euler, DPMSolverPP, UniPC, Heun} <= set(SAMPLERS)


# --- the law


@every_sampler
@every_path
def test_a_gaussian_is_recovered(sampler, path):
    # All is linear here, so the points' own mean and covariance are the law's: no luck is in it. What is allowed is
    # the error of 60 steps, where the variances are 0.8 and 0.4: a first-order step narrows them by up to 0.12.
    steps = {DormandPrince: 2, DPMSolver: 30, RK4: 30}.get(sampler, 60)
    options = {RePaint: {"jump_length": 5, "resamplings": 2}, DormandPrince: {"spacing": Linspace()}}.get(sampler, {})
    tolerance = 0.035 if sampler in SHARP else 0.2 if sampler is AnnealedLangevin else 0.14
    mean, covariance = miss(make(sampler, path, steps, **options), path)
    if covariance > tolerance:  # first order in t is slow where noise levels fall by factors: it still converges
        assert sampler not in SHARP
        before, (mean, covariance) = covariance, miss(make(sampler, path, 4 * steps, **options), path)
        assert covariance < before / 2
    assert covariance < tolerance
    assert mean < (0.12 if sampler is AnnealedLangevin else 0.03)


@pytest.mark.parametrize("path", [Linear(), Cosine(), RectifiedFlow()], ids=name)
@pytest.mark.parametrize("sampler", MORE, ids=describe)
def test_a_gaussian_is_recovered_under_every_option(sampler, path):
    mean, covariance = miss(sampler, path)
    assert mean < 0.03
    assert covariance < 0.14


def test_a_wrong_gaussian_would_be_noticed():
    # The tolerances above have teeth: data of another covariance fall outside of them.
    eps = whitened(POINTS)
    x = DDIM(60).sample(ROUND.denoiser(Cosine()), Cosine(), eps, forbidden_noise)
    assert (torch.cov(x.T) - TILTED.covariance).abs().max() > 0.14
    assert sliced_wasserstein(x, TWO_MODES.draw(POINTS)) > 0.1


@every_sampler
@pytest.mark.parametrize("path", [Linear(), RectifiedFlow()], ids=name)
def test_a_mixture_is_recovered(sampler, path):
    # Two sets of 1000 exact draws lie 0.03 to 0.07 apart; with every std 20 % too small it is 0.08, with the
    # first mode lost 0.4. The standard error of the first weight is 0.0145.
    options = {"spacing": Linspace()} if sampler is DormandPrince else {}
    steps = {DormandPrince: 2, RePaint: 50}.get(sampler, 40 if sampler in SHARP else 100)
    made = make(sampler, path, steps, **options)
    check_mixture(TWO_MODES, made, path)


@pytest.mark.parametrize("path", [Cosine(), RectifiedFlow()], ids=name)
@pytest.mark.parametrize("sampler", [DDPM(100), SDEDPMSolverPP(60), DPMSolverPP(40), UniPC(40), DEIS(40)], ids=describe)
def test_a_mixture_in_sixteen_dimensions_is_recovered(sampler, path):
    check_mixture(SIXTEEN, sampler, path)


def check_mixture(target, sampler, path):
    points, dimensions = 1000, target.means.shape[1]
    eps = whitened(points, dimensions)
    with torch.no_grad():
        x = sampler.sample(target.denoiser(path), path, eps, WhiteNoise(eps))
    assert sliced_wasserstein(x, target.draw(points)) < 0.075
    nearest = (torch.cdist(x, target.means) / target.stds).argmin(1)
    for mode, (weight, mean, std) in enumerate(zip(target.weights, target.means, target.stds, strict=True)):
        own = x[nearest == mode]
        assert len(own) / points == pytest.approx(float(weight), abs=0.045)
        torch.testing.assert_close(own.mean(0), mean, rtol=0, atol=0.12)
        assert float(own.std(0).square().mean().sqrt()) == pytest.approx(float(std), rel=0.12)


@every_path
def test_a_mixture_on_a_line_is_transported_quantile_by_quantile(path):
    # The ODE cannot change the order of points on a line, so its end is known exactly; at the last time over 0.
    # Constant comes down to sigma = 0.3 in 990 of its 1000 steps, so few fall where it matters.
    x, low = path.start(normal(100, 1)), path.t_min
    for sampler in (DEIS(60, spacing=Linspace()), DPMSolverPP(60, spacing=Linspace())):
        steps = list(sampler.steps(ON_A_LINE.denoiser(path), path, x, forbidden_noise))
        assert steps[-2].t == pytest.approx(low)
        distance = (steps[-2].x - ON_A_LINE.transport(path, x, end=low)).square().mean().sqrt()
        assert distance < (0.07 if isinstance(path, Constant) else 0.012)


@pytest.mark.parametrize("sampler", [DDPM(100), SDEDPMSolverPP(60), DDIM(100, eta=0.5)], ids=describe)
@pytest.mark.parametrize("path", [Linear(), Cosine(), RectifiedFlow()], ids=name)
def test_stochastic_samplers_find_a_mixture_on_a_line(sampler, path):
    points = 1000
    eps = whitened(points, 1)
    x = sampler.sample(ON_A_LINE.denoiser(path), path, eps, NoiseSource(eps))
    below = float((x < -0.3).double().mean())  # left of the valley: 0.3 (1 - 0.0013) + 0.7 * 0.0228
    assert below == pytest.approx(0.3 * 0.99865 + 0.7 * 0.02275, abs=0.04)
    assert sliced_wasserstein(x, ON_A_LINE.draw(points), directions=1) < 0.08


# --- the walk


@pytest.mark.parametrize("spacing", SPACINGS, ids=name)
@pytest.mark.parametrize("sampler", [DDIM, DDPM, DPMSolverPP, PLMS], ids=name)
@pytest.mark.parametrize("path", [Linear(), Cosine(), RectifiedFlow(), VE()], ids=name)
def test_every_spacing_ends_in_the_data(sampler, path, spacing):
    if isinstance(spacing, Leading) and isinstance(path, VE):
        pytest.skip("Leading hands the start over as if it were less noisy, which is too wrong where noise is all")
    mean, covariance = miss(make(sampler, path, 60, spacing=spacing), path)
    assert mean < 0.05
    assert covariance < 0.2


@every_sampler
@every_path
def test_the_walk_from_noise_to_data(sampler, path):
    x = normal(8, 2)
    before = x.clone()
    made = make(sampler, path, 7, **ROUGH.get(sampler, {}))
    steps = list(made.steps(tilted_denoiser(path), path, x, NoiseSource(x)))
    assert torch.equal(x, before)  # none writes into its input
    assert torch.equal(steps[-1].x, steps[-1].x0)  # the last step returns x0
    assert steps[-1].t == 0
    assert [step.index for step in steps] == list(range(len(steps)))
    assert {step.num_steps for step in steps} == {len(steps)}
    if sampler is not RePaint:  # it goes back up
        assert len(steps) == made.num_steps
        assert all(later.t < earlier.t for earlier, later in pairwise(steps))


@every_sampler
@every_path
def test_a_sampler_changes_neither_shape_nor_dtype(sampler, path):
    asked: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(t)
        return Denoised(0.1 * x_t)

    x = normal(3, 4, 2, 2, dtype=torch.float32)
    made = make(sampler, path, 5, **ROUGH.get(sampler, {}))
    for step in made.steps(denoise, path, x, NoiseSource(x)):
        assert step.x.dtype == step.x0.dtype == torch.float32
        assert step.x.shape == x.shape
        assert step.x.isfinite().all()
    assert all(t.shape == () and t.dtype == torch.float64 for t in asked)
    assert all(path.t_min - 1e-7 <= t <= path.t_max + 1e-7 for t in asked)


@pytest.mark.parametrize("sampler", [DDIM, DDPM, Euler, DPMSolverPP, DEIS, UniPC, SDEDPMSolverPP], ids=name)
@every_path
def test_samplers_of_one_call_a_step_ask_at_the_times_of_the_grid_alone(sampler, path):
    asked: list[float] = []

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(float(t))
        return Denoised(0.5 * x_t)

    x, made = normal(3, 2), sampler(num_steps=6)
    made.sample(denoise, path, x, NoiseSource(x))
    assert asked == made.spacing.times(6, path).tolist()
