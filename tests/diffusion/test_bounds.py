"""The bounds' terms against closed forms, and the objectives made of them."""

import math

import numpy as np
import pytest
import torch
from diffusion_cases import PAIRS, PREDICTIONS, fits, leaves, name, normal, pair_name
from scipy.stats import norm

from ldm.diffusion import Diffusion
from ldm.diffusion.bounds import decoder_nll, discretised_nll, gaussian_nll, prior_kl, step_kl
from ldm.diffusion.errors import Huber
from ldm.diffusion.objectives import ContinuousBound, Example, Hybrid, Objective, Simple, VariationalBound
from ldm.diffusion.paths import EDM, VE, Cosine, LearnedSchedule, Linear, RectifiedFlow
from ldm.diffusion.predictions import Eps, Preconditioned, V, Velocity
from ldm.diffusion.timesteps import LogitNormal
from ldm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from ldm.diffusion.weightings import MinSNR

STEPS = 8
PATH = Linear(0.02, 0.3, STEPS)
BETAS = np.linspace(0.02, 0.3, STEPS)
BARS = np.cumprod(1 - BETAS)
T = (torch.arange(STEPS, dtype=torch.float64) + 1) / STEPS
X0, GUESS, EPS, RAW = (normal(STEPS, 3, 2, seed=seed) for seed in range(4))
GRID = torch.linspace(-1, 1, 256, dtype=torch.float64)


def posterior_mean(k: int, x0: np.ndarray, x_t: np.ndarray) -> np.ndarray:
    """arXiv 2006.11239, eq. 7."""
    before = BARS[k - 1]
    return np.sqrt(before) * BETAS[k] / (1 - BARS[k]) * x0 + np.sqrt(1 - BETAS[k]) * (1 - before) / (1 - BARS[k]) * x_t


def kl(mean: np.ndarray, variance: np.ndarray, other: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return (np.log(spread / variance) + (variance + (mean - other) ** 2) / spread - 1) / 2


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge(), LearnedRange()], ids=name)
def test_a_step_is_the_divergence_of_two_gaussians(variance):
    log_variance = variance.log_variance(PATH, T, T - 1 / STEPS, RAW)
    found = step_kl(PATH, T[1:], T[:-1], X0[1:], GUESS[1:], log_variance[1:])
    for k in range(1, STEPS):
        x_t = PATH.corrupt(X0, EPS, T)[k].numpy()
        tilde = BETAS[k] * (1 - BARS[k - 1]) / (1 - BARS[k])
        means = (posterior_mean(k, each[k].numpy(), x_t) for each in (X0, GUESS))
        expected = kl(next(means), tilde, next(means), log_variance[k].exp().numpy()).mean()
        assert found[k - 1] == pytest.approx(expected, rel=1e-8)


def test_the_gaussian_decoder():
    expected = -norm.logpdf(X0.numpy(), GUESS.numpy(), np.exp(RAW.numpy() / 2)).mean((1, 2))
    np.testing.assert_allclose(gaussian_nll(X0, GUESS, RAW).numpy(), expected, rtol=1e-12)
    one = gaussian_nll(X0, GUESS, RAW[:, 0, 0])
    np.testing.assert_allclose(one, -norm.logpdf(X0, GUESS, np.exp(RAW[:, :1, :1] / 2)).mean((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("mean", [-1.02, -0.3, 0.9, 1.4])
@pytest.mark.parametrize("std", [0.001, 0.02, 0.7])
def test_the_discretised_decoder_is_a_distribution_over_the_values(mean, std):
    log_variance = torch.full((256,), 2 * math.log(std), dtype=torch.float64)
    means = torch.full((256, 1), mean, dtype=torch.float64)
    found = (-discretised_nll(GRID[:, None], means, log_variance, 256)).exp()
    assert found.sum() == pytest.approx(1, abs=1e-10)
    edges = np.concatenate([[-np.inf], (GRID[:-1] + GRID[1:]).numpy() / 2, [np.inf]])
    np.testing.assert_allclose(found, np.diff(norm.cdf(edges, mean, std)), rtol=0, atol=1e-12)


def test_the_discretised_decoder_is_finite_and_pulls_in_single_precision():
    mean = torch.zeros(256, 1, requires_grad=True)
    nats = discretised_nll(GRID[:, None].float(), mean, torch.full((256,), -16.0), 256)  # up to 3000 sigma away
    nats.sum().backward()
    assert nats.isfinite().all()
    assert mean.grad is not None
    assert mean.grad.isfinite().all()
    assert torch.equal(mean.grad.sign()[[0, 5, 250, 255]].flatten(), torch.tensor([1.0, 1, -1, -1]))


@pytest.mark.parametrize("path", [PATH, VE(0.1, 5.0), EDM(sigma_data=0.5), RectifiedFlow()], ids=name)
def test_the_prior_term(path):
    end = torch.tensor(path.t_max, dtype=torch.float64)
    alpha, sigma = float(path.alpha(end)), float(path.sigma(end))
    expected = kl(alpha * X0.numpy(), np.full(X0.shape, sigma**2), np.zeros(X0.shape), path.prior_std**2)
    np.testing.assert_allclose(prior_kl(path, end, X0), expected.mean((1, 2)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 256])
@pytest.mark.parametrize("variance", [FixedSmall(), LearnedRange()], ids=name)
@pytest.mark.parametrize("prediction", [p for p in PREDICTIONS if fits(p, PATH)], ids=name)
def test_the_bound_is_t_times_the_step_whatever_is_predicted(prediction, variance, levels):
    objective = VariationalBound(variance, levels)
    assert objective.needs_variance == variance.learned
    diffusion = Diffusion(PATH, prediction, objective=objective)
    x_t = PATH.corrupt(X0, EPS, T)
    output = prediction.target(GUESS, PATH.implied_eps(x_t, GUESS, T), T, PATH)
    found = objective(diffusion, Example(X0, EPS, T, x_t), output, RAW)
    log_variance = variance.log_variance(PATH, T, T - 1 / STEPS, RAW)
    steps = step_kl(PATH, T[1:], T[:-1], X0[1:], GUESS[1:], log_variance[1:])
    last = decoder_nll(X0[:1], GUESS[:1], log_variance[:1], levels)
    torch.testing.assert_close(found, STEPS * torch.cat([last, steps]))


def test_the_last_step_is_known_as_such_in_single_precision():
    path = Linear()
    t = path.snap(torch.tensor([0.0, 0.5, 1.0]))
    x0 = normal(3, 2, dtype=torch.float32)
    example = Example(x0, x0, t, path.corrupt(x0, x0, t))
    exact = Example(x0.double(), x0.double(), path.snap(t.double()), example.x_t.double())
    found, expected = (
        VariationalBound()(Diffusion(path, Eps()), each, 0.9 * each.eps, None) for each in (example, exact)
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_other_laws_of_times_do_not_change_what_the_bound_is_of():
    law = LogitNormal(0.5, 0.8)
    even, uneven = (Diffusion(PATH, V(), timesteps=each, objective=VariationalBound()) for each in (None, law))
    losses = [each.loss(lambda x_t, heard, cond: 0.9 * x_t, X0, T, EPS, None) for each in (even, uneven)]
    shares = law.cdf(T, PATH) - law.cdf(T - 1 / STEPS, PATH)
    torch.testing.assert_close((shares * losses[1]).sum(), losses[0].mean())


def test_hybrid_trains_the_estimate_as_simple_and_the_variance_by_the_bound():
    example = Example(X0, EPS, T, PATH.corrupt(X0, EPS, T))
    plain, learned = Diffusion(PATH, V(), MinSNR()), Diffusion(PATH, V(), objective=VariationalBound(LearnedRange()))

    def value_and_gradients(objective: Objective, diffusion: Diffusion) -> list[torch.Tensor]:
        output, raw = GUESS.clone().requires_grad_(), RAW.clone().requires_grad_()
        losses = objective(diffusion, example, output, raw)
        found = torch.autograd.grad(losses.sum(), (output, raw), allow_unused=True)
        return [losses, *(torch.zeros_like(X0) if each is None else each for each in found)]

    hybrid = value_and_gradients(Hybrid(0.01), plain)
    simple, bound = value_and_gradients(Simple(), plain), value_and_gradients(learned.objective, learned)
    assert bound[1].abs().max() > 0.1  # which hybrid has to keep from the estimate
    torch.testing.assert_close(hybrid[0], simple[0] + 0.01 * bound[0])
    torch.testing.assert_close(hybrid[1], simple[1])
    torch.testing.assert_close(hybrid[2], 0.01 * bound[2])


CONTINUOUS = [pair for pair in PAIRS if pair[0].num_steps is None]


@pytest.mark.parametrize("pair", CONTINUOUS, ids=pair_name)
def test_the_continuous_bound_is_half_the_slope_of_logsnr_times_the_error_of_eps(pair):
    path, prediction = pair
    t = torch.linspace(path.t_min, 0.9 * path.t_max, STEPS, dtype=torch.float64)
    x_t = path.corrupt(X0, EPS, t)
    guess = X0 + 0.1 * GUESS
    output = prediction.target(guess, path.implied_eps(x_t, guess, t), t, path)
    diffusion = Diffusion(path, prediction, objective=ContinuousBound())
    found = diffusion.objective(diffusion, Example(X0, EPS, t, x_t), output, None)
    error = (path.implied_eps(x_t, guess, t) - EPS).square().mean((1, 2))
    expected = -path.logsnr_dot(t) / 2 * error * (path.t_max - path.t_min)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_continuous_bound_is_finite_where_no_data_are_left():
    diffusion, t = Diffusion(RectifiedFlow(), Velocity(), objective=ContinuousBound()), torch.ones(STEPS)
    losses = diffusion.loss(lambda x_t, heard, cond: x_t, X0.float(), t, EPS.float(), None)
    assert torch.equal(losses, torch.zeros(STEPS))  # d snr / dt = 0 there


@pytest.mark.parametrize(
    ("path", "objective", "message"),
    [
        (Cosine(), VariationalBound(), "Cosine is continuous: use the objective ContinuousBound"),
        (Cosine(), Hybrid(), "Cosine is continuous: use the objective Simple .* such as Linear"),
        (EDM(), Hybrid(), "Hybrid learns the variance .* EDM is continuous"),
        (Linear(), ContinuousBound(), "Linear has discrete steps: use the objective VariationalBound"),
    ],
)
def test_objectives_on_the_wrong_kind_of_path_are_refused(path, objective, message):
    with pytest.raises(ValueError, match=message):
        Diffusion(path, Preconditioned(), objective=objective)


@pytest.mark.parametrize(("path", "objective"), [(Linear(), VariationalBound()), (Cosine(), ContinuousBound())])
def test_bounds_refuse_what_they_would_not_use(path, objective):
    with pytest.raises(ValueError, match="would not use the weighting MinSNR: leave the weighting out"):
        Diffusion(path, V(), MinSNR(), objective=objective)
    with pytest.raises(ValueError, match="would not use the error Huber"):
        Diffusion(path, V(), error=Huber(), objective=objective)


def test_options_without_meaning_are_refused():
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"vlb_weight=.* \(0.001 is usual\)"):
            Hybrid(wrong)
    for objective in (Hybrid, VariationalBound):
        with pytest.raises(ValueError, match="levels=1 values cannot be told apart; choose 256"):
            objective(levels=1)


def test_a_learned_variance_needs_its_channels():
    for objective in (Hybrid(), VariationalBound(LearnedRange())):
        diffusion = Diffusion(PATH, Eps(), objective=objective)
        diffusion.check_net(4, 8)
        with pytest.raises(ValueError, match="set the net's learned_variance to true"):
            diffusion.check_net(4, 4)


ON_CONTINUOUS = [leaf() for leaf in leaves(Objective) if leaf not in (Hybrid, VariationalBound)]


@pytest.mark.parametrize("objective", ON_CONTINUOUS, ids=name)
def test_a_path_that_learns_is_trained_by_the_continuous_bound_alone(objective):
    diffusion = Diffusion(LearnedSchedule(), V(), objective=objective)
    if isinstance(objective, ContinuousBound):
        diffusion.check_net(4, 4)
        return
    with pytest.raises(ValueError, match=r"LearnedSchedule learns .* use the objective ContinuousBound, or a path"):
        diffusion.check_net(4, 4)


# A learned schedule, for data N(0, 1) and the exact network.


def exact_eps(path: LearnedSchedule):
    def net(x_t, heard, cond):
        gamma = heard / 1000 * (path.logsnr_max - path.logsnr_min) - path.logsnr_max
        return gamma.sigmoid().sqrt()[:, None] * x_t

    return net


def learning() -> tuple[LearnedSchedule, Diffusion]:
    path = LearnedSchedule(logsnr_max=8.0, logsnr_min=-6.0, width=8).double()
    return path, Diffusion(path, Eps(), objective=ContinuousBound())


def losses_over_time(path, diffusion, count: int = 128) -> torch.Tensor:
    t = path.t_min + (torch.arange(count, dtype=torch.float64) + 0.5) / count * (1 - path.t_min)
    x0, eps = normal(count, 256, seed=1), normal(count, 256, seed=2)
    return diffusion.loss(exact_eps(path), x0, t, eps, None)


def test_the_schedule_learns_by_the_spread_of_the_bound():
    path, diffusion = learning()
    plain = losses_over_time(path, diffusion)
    plain.mean().backward()
    assert path.second.grad is not None
    spread, h = [], 1e-4
    for shift in (h, -h):
        with torch.no_grad():
            path.second[3] += shift
            # E[loss] by its closed form, as the drawn x0 and eps do not move with the schedule
            t = path.t_min + (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * (1 - path.t_min)
            mean = -path.logsnr_dot(t) / 2 * path.alpha(t).square() * (1 - path.t_min)
            spread.append(float(mean.square().mean()))
            path.second[3] -= shift
    assert float(path.second.grad[3]) == pytest.approx((spread[0] - spread[1]) / (2 * h), rel=0.15)


def test_the_network_sees_the_plain_bound():
    path, diffusion = learning()
    scale = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    net = exact_eps(path)
    x0, eps, t = normal(4, 3, seed=1), normal(4, 3, seed=2), torch.tensor([0.1, 0.3, 0.6, 0.9]).double()
    losses = diffusion.loss(lambda x_t, heard, cond: scale * net(x_t, heard, cond), x0, t, eps, None)
    error = (eps - scale * net(path.corrupt(x0, eps, t), path.noise_condition(t), None)).square().mean(1)
    expected = -path.logsnr_dot(t) / 2 * error * (path.t_max - path.t_min)
    torch.testing.assert_close(losses, expected)
    found = [torch.autograd.grad(each.sum(), scale, retain_graph=True)[0] for each in (losses, expected)]
    torch.testing.assert_close(found[0], found[1])


def test_the_learned_schedule_lowers_the_variance_of_the_bound():
    path, diffusion = learning()
    before = losses_over_time(path, diffusion).detach()
    optimizer = torch.optim.Adam(path.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        losses_over_time(path, diffusion, 32).mean().backward()
        optimizer.step()
    after = losses_over_time(path, diffusion).detach()
    assert after.var() < 0.3 * before.var()
    assert after.mean() == pytest.approx(float(before.mean()), rel=0.03)  # the bound itself stays
