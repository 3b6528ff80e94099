"""Likelihoods of data whose exact denoiser and density are known: bounds lie above it."""

import math

import numpy as np
import pytest
import torch
from diffusion_cases import (
    ON_A_LINE,
    Mixture,
    NoiseSource,
    leaves,
    name,
    normal,
)
from torch import Tensor

from ldm.diffusion import Diffusion
from ldm.diffusion.degradations import Blur
from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.likelihood import ODE, AdaptiveODE, Continuous, Discrete, Likelihood, bits, total
from ldm.diffusion.objectives import VariationalBound
from ldm.diffusion.paths import (
    EDM,
    VPSDE,
    Cosine,
    DiscreteCosine,
    LearnedSchedule,
    Linear,
    NoiseLevels,
    NoisePath,
    RectifiedFlow,
)
from ldm.diffusion.predictions import V
from ldm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange

METHODS: list[Likelihood] = [leaf() for leaf in leaves(Likelihood)]
ZERO = torch.zeros((), dtype=torch.float64)


def nll(data: Mixture, x0: Tensor) -> Tensor:
    """In nats per dimension."""
    return -data.log_prob(Cosine(), x0, ZERO) / x0.shape[1]


# Bounds. With the nodes of a quadrature for noise and for data, means over both are exact.


def hermite(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights that give means over a standard normal number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


NODES, WEIGHTS = hermite(32)
DATA = (ON_A_LINE.means + ON_A_LINE.stds[:, None] * hermite(16)[0]).reshape(-1, 1)  # of the law ON_A_LINE ...
SHARE = (ON_A_LINE.weights[:, None] * hermite(16)[1]).flatten()  # ... with these weights


class Quadrature:
    """The nodes at each call, for a batch of points x nodes; 0 at the first, where that is for uniform numbers."""

    def __init__(self, points: int, uniform: bool) -> None:
        self.nodes = NODES.repeat(points)[:, None]
        self.uniform, self.calls = uniform, 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.zeros_like(self.nodes) if self.uniform and self.calls == 1 else self.nodes


def expected(method: Likelihood, denoise: Denoise, path: NoisePath, x0: Tensor, levels: int | None = None) -> Tensor:
    """The mean of a bound over its noise, for each of x0 (N, 1)."""
    noise = Quadrature(len(x0), isinstance(method, Continuous))
    with torch.no_grad():
        found = total(method.terms(denoise, path, x0.repeat_interleave(len(NODES), 0), noise, levels))
    return (found.reshape(len(x0), -1) * WEIGHTS).sum(1)


def gap(method: Likelihood, denoise: Denoise, path: NoisePath) -> float:
    """How far the bound on data of the law ON_A_LINE lies over their exact likelihood, on the mean."""
    return float((SHARE * (expected(method, denoise, path, DATA) - nll(ON_A_LINE, DATA))).sum())


def with_largest_variance(denoise: Denoise) -> Denoise:
    """With raw variance channels of 1, the upper end of LearnedRange: the exact variance of short steps."""

    def learned(x_t: Tensor, t: Tensor) -> Denoised:
        return Denoised(denoise(x_t, t).x0, torch.ones_like(x_t))

    return learned


def wrong(denoise: Denoise) -> Denoise:
    return lambda x_t, t: Denoised(0.9 * denoise(x_t, t).x0 + 0.05)


def test_the_discrete_bound_comes_down_to_the_likelihood_as_steps_grow_short():
    gaps = []
    for steps in (50, 150, 450):
        path = Linear(0.02 / steps, 20 / steps, steps)
        gaps.append(gap(Discrete(), with_largest_variance(ON_A_LINE.denoiser(path)), path))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] < 0.02


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge(), LearnedRange()], ids=name)
@pytest.mark.parametrize("num_steps", [None, 7, 1])
def test_the_discrete_bound_lies_above_whatever_the_steps_and_the_network(variance, num_steps):
    path = Linear(0.001, 0.4, 50)
    right, off = (with_largest_variance(each) for each in (ON_A_LINE.denoiser(path), wrong(ON_A_LINE.denoiser(path))))
    assert gap(Discrete(num_steps, variance), off, path) > gap(Discrete(num_steps, variance), right, path) > 0.001


BOUNDED = [Cosine(), RectifiedFlow(), VPSDE(), EDM(), Linear(), LearnedSchedule(width=2)]


@pytest.mark.parametrize("path", BOUNDED, ids=name)
def test_the_continuous_bound_is_nearly_the_likelihood_and_above_it(path):
    method, denoise = Continuous(60), ON_A_LINE.denoiser(path)
    assert -1e-4 < gap(method, denoise, path) < 0.01  # the rule of midpoints may be a little under
    assert gap(method, wrong(denoise), path) > 0.1


LEVELS = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0], dtype=torch.float64)
SHARES = torch.tensor([0.1, 0.5, 0.15, 0.25], dtype=torch.float64)


def four_levels(path: NoisePath) -> Denoise:
    """The exact denoiser of four values, with their SHARES."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = (f(t).reshape(-1, 1) for f in (path.alpha, path.sigma))
        logits = SHARES.log() - (x_t - alpha * LEVELS).square() / (2 * sigma.square())
        return Denoised((logits.softmax(-1) * LEVELS).sum(-1, keepdim=True), torch.ones_like(x_t))

    return denoise


@pytest.mark.parametrize(
    ("method", "path", "most"),
    [
        (Discrete(variance=FixedSmall()), Linear(2e-4, 0.04, 500), 0.08),
        (Continuous(200), Cosine(), 0.02),
        (Continuous(200), EDM(), 0.02),
    ],
)
def test_pixels_are_given_probabilities(method, path, most):
    found = expected(method, four_levels(path), path, LEVELS[:, None], levels=4)
    exact = -SHARES.log()
    assert (found > exact - 0.002).all()
    assert (found < exact + most).all()
    assert (-found).exp().sum() < 1.002


# What holds for each.


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_every_method_gives_as_many_terms_as_it_says(method):
    path = Linear(0.001, 0.3, 20)
    method.check(path)
    x0 = normal(3, 2, 2, 2, dtype=torch.float32)
    terms = list(method.terms(lambda x_t, t: Denoised(0.5 * x_t), path, x0, NoiseSource(x0)))
    assert len(terms) == method.num_terms(path)
    assert all(term.nats.shape == (3,) and term.nats.isfinite().all() for term in terms)
    assert {term.name for term in terms} <= {"prior", "step", "decoder", "scale"}
    assert all(0 <= term.t <= 1 for term in terms)


@pytest.mark.parametrize("path", [Linear(0.001, 0.3, 20), DiscreteCosine(20), NoiseLevels(num_steps=20)], ids=name)
def test_training_on_the_bound_adds_up_to_measuring_it(path):
    """All the steps' losses at one eps, divided by their number, are the terms of the estimate but for the prior."""
    diffusion = Diffusion(path, V(), objective=VariationalBound())
    x0, eps = normal(1, 2, 2, 2), normal(1, 2, 2, 2, seed=1)
    t = torch.arange(1, path.num_steps + 1, dtype=torch.float64) / path.num_steps

    def net(x_t: Tensor, heard: Tensor, cond: None) -> Tensor:
        return 0.8 * x_t

    many = len(t)
    losses = diffusion.loss(net, x0.expand(many, 2, 2, 2), t, eps.expand(many, 2, 2, 2), None)
    terms = list(Discrete(variance=FixedSmall()).terms(diffusion.denoiser(net, None), path, x0, lambda: eps))
    parts = torch.stack([term.nats for term in terms if term.name != "prior"])
    torch.testing.assert_close(losses.mean(), parts.sum(), rtol=1e-6, atol=1e-9)


def test_bits():
    torch.testing.assert_close(bits(torch.tensor([0.0, math.log(2), -math.log(4)])), torch.tensor([0.0, 1.0, -2.0]))


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="Cosine is continuous: use the continuous bound, or the ODE"):
        Discrete().check(Cosine())
    with pytest.raises(ValueError, match="num_steps=21 is more than the 20 steps of Linear; choose at most 20"):
        Discrete(21).check(Linear(num_steps=20))
    for method in METHODS:
        with pytest.raises(ValueError, match="Blur adds no Gaussian noise"):
            method.check(Blur())
    for leaf in (Discrete, Continuous, ODE):
        with pytest.raises(ValueError, match=r"num_steps=0 .* choose at least 1"):
            leaf(0)
    for leaf in (ODE, AdaptiveODE):
        with pytest.raises(ValueError, match="num_probes=0 estimates nothing"):
            leaf(num_probes=0)
        with pytest.raises(ValueError, match=r"start=1\.5 is no time to start from"):
            leaf(start=1.5)
    for option in ("rtol", "atol"):
        with pytest.raises(ValueError, match=f"{option}=0 is no tolerance"):
            AdaptiveODE(**{option: 0})
