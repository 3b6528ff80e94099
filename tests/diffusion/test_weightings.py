import math

import numpy as np
import pytest
import torch
from diffusion_cases import PAIRS, PATHS, WEIGHTINGS, inner_times, name, normal, pair_name
from torch import Tensor

from ldm.diffusion import Diffusion
from ldm.diffusion.paths import Cosine, Linear, NoisePath, RectifiedFlow
from ldm.diffusion.predictions import X0, Eps, Prediction, V, Velocity
from ldm.diffusion.timesteps import CosMap, LogitNormal, LogNormalSigma, LossAware, Mode
from ldm.diffusion.weightings import (
    P2,
    EDMWeighting,
    FlowDensity,
    MinSNR,
    ScoreMatching,
    SigmoidWeighting,
    SoftMinSNR,
    TruncatedSNR,
    Uniform,
    Weighting,
)

PRESERVING = [
    path for path in PATHS if math.isclose(float(path.alpha(HALF := torch.tensor(0.5)) ** 2 + path.sigma(HALF) ** 2), 1)
]


def numpy_of(path: NoisePath, t: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """alpha, sigma and -dlogsnr/dt times snr, the last by its limit where alpha is 0."""
    alpha, sigma = path.alpha(t).numpy(), path.sigma(t).numpy()
    growth = alpha * path.sigma_dot(t).numpy() - sigma * path.alpha_dot(t).numpy()
    return alpha, sigma, 2 * alpha * growth / sigma**3


def logit_normal_density(t: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Esser et al. 2024, section 3.1."""
    logit = np.log(t / (1 - t))
    return np.exp(-((logit - mean) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi) * t * (1 - t))


# What each puts on the squared error of x0, by its paper, from alpha, sigma, snr * -dlogsnr/dt and sigma_data.
ON_X0 = [
    (MinSNR(5.0), lambda a, s, fall, data: np.minimum((a / s) ** 2, 5)),
    (SoftMinSNR(4.0), lambda a, s, fall, data: (a / s) ** 2 * 4 / ((a / s) ** 2 + 4)),
    (TruncatedSNR(), lambda a, s, fall, data: np.maximum((a / s) ** 2, 1)),
    (ScoreMatching(), lambda a, s, fall, data: (a / s) ** 2),
    (P2(1.0, 0.5), lambda a, s, fall, data: (a / s) ** 2 / (1 + (a / s) ** 2) ** 0.5),
    (P2(), lambda a, s, fall, data: (a / s) ** 2 / (1 + (a / s) ** 2)),
    (EDMWeighting(), lambda a, s, fall, data: (s**2 + a**2 * data**2) / (s * data) ** 2),
    (SigmoidWeighting(-1.0), lambda a, s, fall, data: fall / (1 + np.exp(1.0) * (a / s) ** 2)),
]
ON_X0_IDS = [f"{name(weighting)}{i}" for i, (weighting, _) in enumerate(ON_X0)]


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_weights_are_finite_and_not_negative_wherever_a_network_is_trained(weighting, pair):
    path, prediction = pair
    for t in (path.snap(inner_times(path)), inner_times(path).float()):
        weights = weighting(t, path, prediction)
        assert weights.shape == t.shape
        assert weights.dtype == t.dtype
        assert weights.isfinite().all()
        assert (weights >= 0).all()


@pytest.mark.parametrize(("weighting", "on_x0"), ON_X0, ids=ON_X0_IDS)
@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_the_loss_is_the_papers_weight_on_the_error_of_x0(pair, weighting, on_x0):
    path, prediction = pair
    t = path.snap(inner_times(path, 23))
    x0, eps, wrong = (normal(23, 2, 3, seed=seed) for seed in (1, 2, 3))
    guess = x0 + 0.1 * wrong

    def net(seen: Tensor, heard: Tensor, cond: None) -> Tensor:
        return prediction.target(guess, path.implied_eps(path.corrupt(x0, eps, t), guess, t), t, path)

    found = Diffusion(path, prediction, weighting).loss(net, x0, t, eps, None)
    expected = on_x0(*numpy_of(path, t), path.sigma_data) * (0.01 * wrong.square().mean((1, 2))).numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-9)


def test_every_weighting_is_held_against_its_paper():
    told = {type(weighting) for weighting, _ in ON_X0}
    assert {type(weighting) for weighting in WEIGHTINGS} == told | {Uniform, FlowDensity}


@pytest.mark.parametrize("path", PRESERVING, ids=name)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_closed_forms(path, gamma):
    t = inner_times(path)
    snr = path.logsnr(t).exp()
    cut = snr.clamp(max=gamma)
    weighting = MinSNR(gamma)
    torch.testing.assert_close(weighting(t, path, V()), cut / (snr + 1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weighting(t, path, X0()), cut, rtol=1e-9, atol=1e-12)
    if bool((snr > 0).all()):
        torch.testing.assert_close(weighting(t, path, Eps()), cut / snr, rtol=1e-9, atol=1e-12)


def test_min_snr_on_rectified_flow():
    t = inner_times(RectifiedFlow())
    cut = ((1 - t) / t).square().clamp(max=5)
    torch.testing.assert_close(MinSNR()(t, RectifiedFlow(), Velocity()), cut * t.square())
    torch.testing.assert_close(MinSNR()(t, RectifiedFlow(), V()), cut * (t / ((1 - t) ** 2 + t**2)) ** 2)


@pytest.mark.parametrize(
    ("weighting", "prediction"), [(ScoreMatching(), Eps()), (EDMWeighting(), V()), (P2(gamma=0.0), Eps())]
)
def test_weights_that_are_one_on_the_variance_preserving_path(weighting: Weighting, prediction: Prediction):
    t = inner_times(Linear())
    torch.testing.assert_close(weighting(t, Linear(), prediction), torch.ones_like(t), rtol=1e-9, atol=0)


def test_uniform_is_one():
    assert torch.equal(Uniform()(torch.rand(4), RectifiedFlow(), Velocity()), torch.ones(4))


def test_the_sigmoid_weighting_is_the_same_integral_on_every_path():
    # Over uniform times the weight on eps integrates to that of sigmoid(b - logsnr) over logsnr: log(1 + e^(b-logsnr)).
    for path in (Cosine(), RectifiedFlow()):
        t = torch.linspace(0.05, 0.9, 20001, dtype=torch.float64)
        on_eps = SigmoidWeighting(0.5)(t, path, X0()) / path.logsnr(t).exp()
        bounds = torch.nn.functional.softplus(0.5 - path.logsnr(t[[0, -1]]))
        assert float(torch.trapezoid(on_eps, t)) == pytest.approx(float(bounds[1] - bounds[0]), rel=1e-6)


@pytest.mark.parametrize("law", [LogitNormal(0.3, 0.8), Mode(0.81), CosMap()], ids=name)
def test_flow_density_trains_in_the_mean_what_the_law_does(law):
    path, u = RectifiedFlow(), (torch.arange(50_000, dtype=torch.float64) + 0.5) / 50_000

    def mean_loss(diffusion: Diffusion) -> float:
        t = diffusion.quantile(u)
        zeros = torch.zeros(len(t), 1, 1, dtype=torch.float64)
        return float(
            diffusion.loss(lambda x, heard, cond: (heard / 500).sin()[:, None, None], zeros, t, zeros, None).mean()
        )

    weighed = mean_loss(Diffusion(path, Velocity(), FlowDensity(law)))
    assert weighed == pytest.approx(mean_loss(Diffusion(path, Velocity(), timesteps=law)), rel=1e-4)


def test_flow_density_is_stable_diffusion_3s_weight_on_eps():
    # w_t = t / (1 - t) pi(t), and on eps by their eq. of the weighted loss: 1/2 w_t -dlogsnr/dt
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    pi = logit_normal_density(t.numpy(), 0.0, 1.0)
    fall = 2 / (t * (1 - t)).numpy()
    expected = 0.5 * (t / (1 - t)).numpy() * pi * fall
    on_eps = FlowDensity()(t, RectifiedFlow(), X0()) / RectifiedFlow().logsnr(t).exp()
    np.testing.assert_allclose(on_eps.numpy(), expected * 0.999, rtol=1e-5)  # uniform times span 0.999 of [0, 1]


def test_flow_density_checks_its_law():
    with pytest.raises(ValueError, match="LossAware learns its own: use LogitNormal"):
        Diffusion(RectifiedFlow(), Velocity(), FlowDensity(LossAware()))
    with pytest.raises(ValueError, match="outside the noise levels"):
        Diffusion(Cosine(), Velocity(), FlowDensity(LogNormalSigma(50.0)))


@pytest.mark.parametrize("weighting", [MinSNR, SoftMinSNR])
@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_a_gamma_without_meaning_is_refused(weighting, gamma):
    with pytest.raises(ValueError, match="number over 0"):
        weighting(gamma)


def test_other_numbers_without_meaning_are_refused():
    for wrong in ({"k": 0.0}, {"gamma": -1.0}, {"gamma": math.nan}):
        with pytest.raises(ValueError, match="k over 0"):
            P2(**wrong)
    with pytest.raises(ValueError, match="choose a finite number"):
        SigmoidWeighting(math.inf)
