"""Every table and curve of a path against its paper's formula, in plain numpy."""

import math

import numpy as np
import pytest
import torch
from diffusion_cases import name

from ldm.diffusion.paths import (
    EDM,
    VE,
    VPSDE,
    Betas,
    Constant,
    DiscreteCosine,
    DiscretePath,
    Exponential,
    Laplace,
    Linear,
    NoiseLevels,
    Quadratic,
    Respaced,
    ScaledLinear,
    SigmoidAlphaBar,
    SigmoidBetas,
    SubVP,
    level,
)
from ldm.diffusion.predictions import Eps, V, Velocity

T = 1000
K = np.arange(T)
TIMES = np.arange(T + 1) / T


def alpha_bars(path):
    t = torch.arange(1, path.num_steps + 1, dtype=torch.float64) / path.num_steps
    return path.alpha(t).square().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cut(alpha_bar, max_beta=0.999):
    """alpha_bar after its betas have been cut."""
    return np.cumprod(1 - np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def cosine():
    f = np.cos((TIMES + 0.008) / 1.008 * math.pi / 2) ** 2
    return cut(f / f[0])


def sigmoid_alpha_bar():
    start, end, tau = -3, 3, 0.9
    output = (sigmoid(end / tau) - sigmoid((TIMES * (end - start) + start) / tau)) / (
        sigmoid(end / tau) - sigmoid(start / tau)
    )
    return cut(output)


def laplace(mu=0.0, b=2.0):
    with np.errstate(divide="ignore"):
        logsnr = mu - b * np.sign(0.5 - TIMES) * np.log(1 - 2 * np.abs(TIMES - 0.5))
    return cut(sigmoid(logsnr))


def of_betas(betas):
    return np.cumprod(1 - betas)


@pytest.mark.parametrize(
    ("path", "table"),
    [
        (Quadratic(), of_betas((0.01 + (math.sqrt(0.02) - 0.01) * K / (T - 1)) ** 2)),
        (SigmoidBetas(), of_betas(1e-4 + (0.02 - 1e-4) * sigmoid(-6 + 12 * K / (T - 1)))),
        (Exponential(), of_betas(1e-4 * (0.05 / 1e-4) ** (K / (T - 1)))),
        (Constant(0.02), 0.98 ** (K + 1.0)),
        (Betas(), of_betas(1e-4 + (0.02 - 1e-4) * K / (T - 1))),
        (Betas([0.3, 0.1, 0.6]), np.array([0.7, 0.63, 0.252])),
        (DiscreteCosine(), cosine()),
        (SigmoidAlphaBar(tau=0.9), sigmoid_alpha_bar()),
        (Laplace(), laplace()),
        (Laplace(mu=1.0, b=0.5), laplace(1.0, 0.5)),
    ],
    ids=lambda case: name(case) if isinstance(case, DiscretePath) else "",
)
def test_discrete_paths_are_their_formulas(path, table):
    np.testing.assert_allclose(alpha_bars(path), table, rtol=1e-9, atol=1e-15)


def test_known_numbers():
    assert float(1 - alpha_bars(DiscreteCosine())[0]) == pytest.approx(4.1284e-5, rel=1e-4)  # first beta of the paper's
    assert alpha_bars(Laplace(b=0.5))[499] == pytest.approx(0.5)


@pytest.mark.parametrize("leaf", [Linear, ScaledLinear])
def test_zero_terminal_snr_is_the_published_algorithm(leaf):
    root = np.sqrt(alpha_bars(leaf()))
    first, last = root[0], root[-1]
    root = (root - last) * first / (first - last)
    path = leaf(zero_terminal_snr=True)
    np.testing.assert_allclose(alpha_bars(path), root**2, rtol=1e-9, atol=1e-15)
    end, inside = level(path, 1.0), level(path, 1 - 0.25 / T)
    assert (end.alpha, end.sigma, end.logsnr, end.sigma_dot) == (0, 1, -math.inf, 0)
    assert end.alpha_dot == pytest.approx(-T * root[-2], rel=1e-9)
    assert inside.alpha == pytest.approx(0.25 * root[-2], rel=1e-9)  # alpha runs straight to 0
    assert float(path.t_from_logsnr(torch.tensor(inside.logsnr, dtype=torch.float64))) == pytest.approx(
        inside.t, abs=1e-12
    )
    with pytest.raises(ValueError, match="choose num_steps of at least 2"):
        leaf(num_steps=1, zero_terminal_snr=True)


def test_a_last_beta_of_one_is_pure_noise():
    path = Betas([0.2, 1.0])
    assert [level(path, t).alpha for t in (0.5, 0.75, 1.0)] == pytest.approx([0.8**0.5, 0.8**0.5 / 2, 0])
    assert level(DiscreteCosine(max_beta=1.0), 1.0).alpha == 0
    with pytest.raises(ValueError, match=r"Eps has no meaning on Betas.*Use the prediction Velocity, V"):
        Eps().check(path)
    V().check(path)
    Velocity().check(path)


@pytest.mark.parametrize("num_steps", [1, 7, 250, 1000])
def test_respaced_keeps_alpha_bar_and_what_is_heard(num_steps):
    inner = DiscreteCosine()
    kept = np.round(np.linspace(0, T - 1, num_steps)).astype(int) if num_steps > 1 else np.array([T - 1])
    path = Respaced(inner, num_steps)
    np.testing.assert_allclose(alpha_bars(path), alpha_bars(inner)[kept], rtol=1e-7)
    for dtype in (torch.float32, torch.float64):
        t = torch.arange(1, num_steps + 1, dtype=dtype) / num_steps
        assert path.noise_condition(t).tolist() == kept.tolist()


def test_vp_sde_and_sub_vp_are_their_formulas():
    t = np.linspace(0.001, 1, 37)
    alpha = np.exp(-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1)
    at = torch.from_numpy(t)
    for path, sigma in ((VPSDE(), np.sqrt(1 - alpha**2)), (SubVP(), 1 - alpha**2)):
        np.testing.assert_allclose(path.alpha(at), alpha, rtol=1e-13)
        np.testing.assert_allclose(path.sigma(at), sigma, rtol=1e-10)


def test_vp_sde_is_the_limit_of_linear():
    path, table = VPSDE(0.1, 20.0), Linear(0.1 / 20000, 20 / 20000, 20000)
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    torch.testing.assert_close(path.logsnr(t), table.logsnr(t), rtol=0, atol=6e-3)


def test_exploding_paths_are_their_formulas():
    t = np.linspace(0.05, 1, 37)
    at = torch.from_numpy(t)
    r2 = 1 + (50 / 0.01) ** 2
    np.testing.assert_allclose(VE().sigma(at), 0.01 * np.sqrt(r2**t - 1), rtol=1e-12)
    # Far from data it is Song et al.'s own sigma_min (sigma_max / sigma_min)^t.
    np.testing.assert_allclose(VE().sigma(at[20:]), 0.01 * 5000 ** t[20:], rtol=1e-4)
    np.testing.assert_allclose(EDM().sigma(at), 80 * t, rtol=1e-13)
    np.testing.assert_allclose(EDM().noise_condition(at), np.log(80 * t) / 4, rtol=1e-13)
    for path, low, high in ((VE(), 0.01, 50), (EDM(), 0.002, 80), (NoiseLevels(), 0.01, 50)):
        assert level(path, path.t_min).sigma == pytest.approx(low, rel=1e-12)
        assert level(path, 1.0).sigma == pytest.approx(high, rel=1e-12)
        assert level(path, 1.0).alpha == 1


def test_noise_levels_are_geometric():
    path = NoiseLevels(0.01, 1.0, 10)
    t = torch.arange(1, 11, dtype=torch.float64) / 10
    np.testing.assert_allclose(path.sigma(t), np.geomspace(0.01, 1, 10), rtol=1e-12)
    assert path.noise_condition(t).tolist() == list(range(10))
    given = NoiseLevels(sigmas=[0.1, 0.4, 0.5])
    halves = [given.sigma(torch.tensor(k / 6).double()).item() for k in range(7)]
    assert halves == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.2**0.5, 0.5])
    one = NoiseLevels(sigmas=[0.3])
    assert one.t_from_logsnr(one.logsnr(t)).tolist() == pytest.approx(t.tolist())


@pytest.mark.parametrize("path", [VE(sigma_data=0.5), EDM(sigma_data=0.5), NoiseLevels(sigma_data=0.5)], ids=name)
def test_networks_see_exploding_paths_at_unit_variance(path):
    t = torch.tensor([path.t_min, 0.3, 1.0], dtype=torch.float64)
    std = torch.sqrt(path.sigma(t) ** 2 + 0.25)
    torch.testing.assert_close(path.net_input(std[:, None], t), torch.ones(3, 1).double())
    torch.testing.assert_close(path.net_input(std[1:2].float(), t[1]), torch.ones(1))
    assert path.prior_std == pytest.approx(float(std[-1]))
    x = torch.ones(3, 1)
    assert VPSDE().net_input(x, t) is x


@pytest.mark.parametrize("path", [VE(), EDM(), NoiseLevels()], ids=name)
def test_velocity_is_refused_where_data_do_not_move(path):
    with pytest.raises(ValueError, match=rf"Velocity has no meaning on {name(path)}.*Use Eps or Preconditioned"):
        Velocity().check(path)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: Constant(1.0), "choose 0 < beta_start <= beta_end < 1"),
        (lambda: Exponential(0.0), "choose 0 < beta_start <= beta_end < 1"),
        (lambda: Betas([]), "give at least one number"),
        (lambda: Betas([0.1, 1.0, 0.1]), "choose each over 0 and under 1"),
        (lambda: Betas([0.1, math.nan]), "choose each over 0 and under 1"),
        (lambda: DiscreteCosine(0), "choose at least 1"),
        (lambda: DiscreteCosine(offset=-0.1), "choose 0 or more"),
        (lambda: DiscreteCosine(max_beta=1.5), "choose over 0 and at most 1"),
        (lambda: SigmoidAlphaBar(z_start=3, z_end=-3), "choose z_start < z_end"),
        (lambda: SigmoidAlphaBar(tau=0), "choose a number over 0"),
        (lambda: Laplace(mu=math.inf), "choose a finite number"),
        (lambda: Laplace(b=0), "choose a number over 0"),
        (lambda: Respaced(Linear(), 1001), "choose from 1 to 1000"),
        (lambda: VPSDE(0.0, 20), "choose 0 < beta_min <= beta_max"),
        (lambda: SubVP(20, 0.1), "choose 0 < beta_min <= beta_max"),
        (lambda: VE(1.0, 1.0), "choose 0 < sigma_min < sigma_max"),
        (lambda: VE(sigma_data=0.0), "choose a number over 0"),
        (lambda: EDM(rho=0), "choose a number over 0"),
        (lambda: NoiseLevels(num_steps=1), "choose at least 2"),
        (lambda: NoiseLevels(sigmas=[1.0, 0.5]), "each over the one before"),
        (lambda: NoiseLevels(sigmas=[0.0, 0.5]), "each over the one before"),
    ],
)
def test_what_makes_no_path_is_refused(make, advice):
    with pytest.raises(ValueError, match=advice):
        make()
