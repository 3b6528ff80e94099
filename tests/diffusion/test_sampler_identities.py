"""Samplers that are one another under some setting, the published steps of the first ones, and refused options."""

import math

import pytest
import torch
from diffusion_cases import PATHS, ROUND, TWO_MODES, NoiseSource, forbidden_noise, name, normal
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.paths import Cosine, Linear, NoisePath, RectifiedFlow, level
from ldm.diffusion.samplers import (
    DDIM,
    DDPM,
    DEIS,
    PLMS,
    DPMSolver,
    DPMSolverPP,
    Euler,
    Sampler,
    SDEDPMSolverPP,
    UniPC,
)
from ldm.diffusion.samplers.ddpm import posterior_mean
from ldm.diffusion.spacings import Leading, Linspace, Trailing
from ldm.diffusion.variances import FixedLarge, FixedSmall

every_path = pytest.mark.parametrize("path", PATHS, ids=name)


def same_walk(one: Sampler, other: Sampler, path: NoisePath) -> None:
    x = path.start(normal(16, 2))
    denoise = TWO_MODES.denoiser(path)
    scale = float(x.abs().max())
    walks = (sampler.steps(denoise, path, x, NoiseSource(x)) for sampler in (one, other))
    for here, there in zip(*walks, strict=True):
        torch.testing.assert_close(here.x, there.x, rtol=0, atol=1e-9 * max(scale, 1))


# --- equalities


@every_path
def test_all_first_orders_are_ddim(path):
    at = Trailing()
    for sampler in (
        DPMSolver(8, order=1, spacing=at),
        DPMSolverPP(8, order=1, spacing=at),
        DPMSolverPP(8, order=1, multistep=False, spacing=at),
        UniPC(8, order=1, corrector=False, spacing=at),
    ):
        same_walk(sampler, DDIM(8, spacing=at), path)


@pytest.mark.parametrize("path", [Linear(), Cosine(), RectifiedFlow()], ids=name)
def test_deis_of_first_order_is_ddim(path):
    same_walk(DEIS(20, order=1, spacing=Trailing()), DDIM(20), path)


@every_path
def test_the_predictors_of_unipc_are_dpm_solver_pp(path):
    for order in (2, 3):
        same_walk(UniPC(8, order=order, corrector=False), DPMSolverPP(8, order=order), path)


@every_path
def test_sde_dpm_solver_pp_of_first_order_is_ddim_with_all_noise_fresh(path):
    same_walk(SDEDPMSolverPP(8, order=1), DDIM(8, eta=1), path)


@every_path
@pytest.mark.parametrize("spacing", [Trailing(), Leading(), Linspace()], ids=name)
def test_ddpm_is_ddim_with_all_noise_fresh(path, spacing):
    same_walk(DDPM(8, FixedSmall(), spacing), DDIM(8, 1.0, spacing), path)


def test_ddim_and_euler_are_equal_on_rectified_flow():
    same_walk(DDIM(17), Euler(17), RectifiedFlow())


# --- the papers


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


# --- options


@pytest.mark.parametrize("sampler", [DPMSolver, DPMSolverPP, SDEDPMSolverPP, DEIS, UniPC], ids=name)
@pytest.mark.parametrize("order", [0, 5])
def test_an_order_that_does_not_exist_is_refused(sampler, order):
    with pytest.raises(ValueError, match="choose from 1 to"):
        sampler(order=order)


def test_an_unknown_variant_of_unipc_is_refused():
    with pytest.raises(ValueError, match="choose bh1 or bh2"):
        UniPC(variant="bh3")


def test_calls_of_the_network():
    x, path = normal(2, 2), Cosine()
    for sampler, calls in (
        (DPMSolver(5, order=3), 4 * 3 + 1),
        (DPMSolverPP(5, order=2, multistep=False), 4 * 2 + 1),
        (DPMSolverPP(5, order=3), 5),
        (UniPC(5), 5),
        (DEIS(5), 5),
        (PLMS(5, spacing=Linspace()), 5),
    ):
        asked: list[float] = []

        def denoise(x_t: Tensor, t: Tensor, asked: list[float] = asked) -> Denoised:
            asked.append(float(t))
            return Denoised(x_t)

        sampler.sample(denoise, path, x, forbidden_noise)
        assert len(asked) == calls


def test_noise_is_drawn_between_steps_only():
    x = normal(8, 2)
    for sampler, draws in ((DDIM(10), 0), (DDIM(10, eta=0.2), 9), (DDPM(10), 9), (SDEDPMSolverPP(10), 9)):
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


def test_ddim_can_end_at_the_first_level_as_compvis_does():
    path, x = Linear(), normal(8, 2)
    *_, before, last = DDIM(20, end_at_data=False).steps(TWO_MODES.denoiser(path), path, x, forbidden_noise)
    bar = 1 - 1e-4  # alpha_bar_0
    eps = path.implied_eps(before.x, last.x0, torch.tensor(before.t, dtype=torch.float64))
    torch.testing.assert_close(last.x, bar**0.5 * last.x0 + (1 - bar) ** 0.5 * eps, rtol=0, atol=1e-12)
    assert torch.equal(DDIM(20).sample(TWO_MODES.denoiser(path), path, x, forbidden_noise), last.x0)
