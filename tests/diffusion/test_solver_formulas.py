"""The solvers of high order against the formulas of their papers, in plain numpy."""

import math

import numpy as np
import pytest
import torch
from diffusion_cases import TILTED, WhiteNoise, forbidden_noise, name, normal, whitened
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.paths import Cosine, Linear, NoisePath, RectifiedFlow, levels
from ldm.diffusion.predictions import Eps
from ldm.diffusion.samplers import (
    DEIS,
    PLMS,
    PNDM,
    DPMSolver,
    DPMSolverPP,
    Sampler,
    SDEDPMSolverPP,
    UniPC,
)
from ldm.diffusion.samplers.deis import step_weights
from ldm.diffusion.samplers.exponential import integral
from ldm.diffusion.spacings import Linspace


def test_the_integrals_are_the_integrals():
    for h in (-3.0, -1.001, -0.999, -1e-4, 1e-4, 0.7, 0.999, 1.001, 4.0):
        nodes, shares = np.polynomial.legendre.leggauss(40)
        u, shares = (nodes + 1) / 2 * h, shares / 2 * h
        for k in range(4):
            wanted = (np.exp(u - h) * u**k / math.factorial(k) * shares).sum()
            assert integral(k, h) == pytest.approx(wanted, rel=1e-12)
    assert integral(0, math.inf) == 1


def walk(sampler: Sampler, path: NoisePath, model: object) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The states on the way, the first one included, and the estimates at them."""
    x = path.start(normal(4, 2))
    steps = list(sampler.steps(lambda x_t, t: Denoised(model(x_t, t)), path, x, forbidden_noise))
    return [x.numpy(), *(step.x.numpy() for step in steps)], [step.x0.numpy() for step in steps]


def curved(x_t: Tensor, t: Tensor) -> Tensor:
    return torch.sin(x_t) + t * x_t


def grid(sampler: Sampler, path: NoisePath) -> tuple[np.ndarray, ...]:
    rows = levels(path, sampler.spacing.times(sampler.num_steps, path))
    return tuple(np.array([getattr(row, key) for row in rows]) for key in ("alpha", "sigma", "lam"))


def test_2m_is_algorithm_2():
    path, sampler = Cosine(), DPMSolverPP(6)
    states, x0 = walk(sampler, path, curved)
    alpha, sigma, lam = grid(sampler, path)
    for i in range(2, 5):  # x_{i-1} to x_i; t_0 is the start
        h, h_before = lam[i] - lam[i - 1], lam[i - 1] - lam[i - 2]
        r = h_before / h
        d = (1 + 1 / (2 * r)) * x0[i - 1] - 1 / (2 * r) * x0[i - 2]
        wanted = sigma[i] / sigma[i - 1] * states[i - 1] - alpha[i] * (np.exp(-h) - 1) * d
        np.testing.assert_allclose(states[i], wanted, rtol=0, atol=1e-12)


def test_3m_takes_the_parabola_exactly():
    # x0 = a + b lambda + c lambda^2, whatever x is: then the step is the exact integral, here by quadrature.
    path, sampler = Cosine(), DPMSolverPP(8, order=3)

    def parabola(x_t: Tensor, t: Tensor) -> Tensor:
        lam = path.logsnr(t) / 2
        return torch.ones_like(x_t) * (0.3 - 0.2 * lam + 0.1 * lam**2)

    states, _ = walk(sampler, path, parabola)
    _, sigma, lam = grid(sampler, path)
    nodes, shares = np.polynomial.legendre.leggauss(40)
    for i in range(3, 8):
        h = lam[i] - lam[i - 1]
        at = lam[i - 1] + (nodes + 1) / 2 * h
        inner = (np.exp(at) * (0.3 - 0.2 * at + 0.1 * at**2) * shares).sum() / 2 * h
        wanted = sigma[i] / sigma[i - 1] * states[i - 1] + sigma[i] * inner
        np.testing.assert_allclose(states[i], wanted, rtol=0, atol=1e-10)


def noise_model(path: NoisePath) -> object:
    """curved, as the noise it implies, for numpy."""

    def eps(x: np.ndarray, lam: float) -> np.ndarray:
        t = path.t_from_logsnr(torch.tensor(2 * lam, dtype=torch.float64))
        x_t = torch.from_numpy(x)
        return Eps().from_x0(curved(x_t, t), x_t, t, path).numpy()

    return eps


def at(path: NoisePath, lam: float) -> tuple[float, float]:
    t = path.t_from_logsnr(torch.tensor(2 * lam, dtype=torch.float64))
    return float(path.alpha(t)), float(path.sigma(t))


def test_dpm_solver_2_and_3_are_algorithms_1_and_2():
    path = Cosine()
    eps = noise_model(path)
    for order in (2, 3):
        sampler = DPMSolver(6, order=order)
        states, _ = walk(sampler, path, curved)
        alpha, sigma, lam = grid(sampler, path)
        for i in range(1, 5):
            x, h = states[i - 1], lam[i] - lam[i - 1]
            e, a, r1 = eps(x, lam[i - 1]), alpha[i - 1], 1 / order
            a1, s1 = at(path, lam[i - 1] + r1 * h)
            u1 = a1 / a * x - s1 * (np.exp(r1 * h) - 1) * e
            d1 = eps(u1, lam[i - 1] + r1 * h) - e
            wanted = alpha[i] / a * x - sigma[i] * (np.exp(h) - 1) * e
            if order == 2:
                wanted = wanted - sigma[i] / (2 * r1) * (np.exp(h) - 1) * d1
            else:
                r2 = 2 / 3
                a2, s2 = at(path, lam[i - 1] + r2 * h)
                u2 = a2 / a * x - s2 * (np.exp(r2 * h) - 1) * e
                u2 = u2 - s2 * r2 / r1 * ((np.exp(r2 * h) - 1) / (r2 * h) - 1) * d1
                d2 = eps(u2, lam[i - 1] + r2 * h) - e
                wanted = wanted - sigma[i] / r2 * ((np.exp(h) - 1) / h - 1) * d2
            np.testing.assert_allclose(states[i], wanted, rtol=1e-9, atol=1e-9)


def test_2s_is_algorithm_1():
    path, sampler = Cosine(), DPMSolverPP(6, multistep=False)
    states, x0 = walk(sampler, path, curved)
    alpha, sigma, lam = grid(sampler, path)
    for i in range(1, 5):
        h = lam[i] - lam[i - 1]
        a, s = at(path, lam[i - 1] + h / 2)
        u = s / sigma[i - 1] * states[i - 1] - a * (np.exp(-h / 2) - 1) * x0[i - 1]
        t = path.t_from_logsnr(torch.tensor(2 * lam[i - 1] + h, dtype=torch.float64))
        d = curved(torch.from_numpy(u), t).numpy()  # r = 1/2
        wanted = sigma[i] / sigma[i - 1] * states[i - 1] - alpha[i] * (np.exp(-h) - 1) * d
        np.testing.assert_allclose(states[i], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_is_algorithms_1_and_2(variant):
    # x0 form: x~ = sigma_s/sigma_t x - alpha_s (e^-h - 1) m, then -alpha_s B sum a_m D_m / r_m with R a = b; B < 0.
    path, sampler = Cosine(), UniPC(8, order=2, variant=variant)
    states, x0 = walk(sampler, path, curved)
    alpha, sigma, lam = grid(sampler, path)
    before = None  # the corrected state of the step before
    for i in range(1, 7):
        h = lam[i] - lam[i - 1]
        b = -h if variant == "bh1" else np.expm1(-h)
        linear = (
            sigma[i] / sigma[i - 1] * (states[0] if before is None else before) - alpha[i] * np.expm1(-h) * x0[i - 1]
        )
        predicted, rows = linear, []
        if i > 1:
            r = (lam[i - 2] - lam[i - 1]) / h
            rows = [(r, (x0[i - 2] - x0[i - 1]) / r)]
            predicted = linear - alpha[i] * b * 0.5 * rows[0][1]
        np.testing.assert_allclose(states[i], predicted, rtol=0, atol=1e-11)
        rows = [*rows, (1.0, x0[i] - x0[i - 1])]
        phi_1 = np.expm1(-h) / -h - 1
        right = [phi_1 / b, (phi_1 / -h - 0.5) * 2 / b][: len(rows)]
        matrix = np.array([[r**k for r, _ in rows] for k in range(len(rows))])
        shares = [0.5] if len(rows) == 1 else np.linalg.solve(matrix, right)
        before = linear - alpha[i] * b * sum(share * d for share, (_, d) in zip(shares, rows, strict=True))


def test_plms_and_pndm_are_pseudo_multistep():
    path = Cosine()
    for sampler in (PLMS(24), PNDM(24)):
        states, x0 = walk(sampler, path, curved)
        alpha, sigma, _ = grid(sampler, path)
        noises = [(states[i] - alpha[i] * x0[i]) / sigma[i] for i in range(24)]
        for i in range(4, 24):
            window = noises[i - 1 : i - 5 if i > 4 else None : -1]
            e = (55 * window[0] - 59 * window[1] + 37 * window[2] - 9 * window[3]) / 24
            wanted = alpha[i] / alpha[i - 1] * states[i - 1]
            wanted = wanted + (sigma[i] - alpha[i] / alpha[i - 1] * sigma[i - 1]) * e
            np.testing.assert_allclose(states[i], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=name)
def test_deis_weights_are_the_integrals_of_the_lagrange_polynomials(path):
    spacing = Linspace()
    intervals = DEIS(6, spacing=spacing).intervals(path)
    weights = step_weights(path, intervals, [1, 2, 3, 3, 3, 1])
    for index, order in ((1, 2), (3, 3)):
        t, s = intervals[index]
        times = [start.t for start, _ in intervals[index::-1][:order]]
        fine = torch.linspace(s.t, t.t, 200_001, dtype=torch.float64)
        ratio = (path.sigma(fine) / path.alpha(fine)).numpy()
        for j in range(order):
            others = [time for k, time in enumerate(times) if k != j]
            shape = np.prod([(fine.numpy() - other) / (times[j] - other) for other in others], axis=0)
            wanted = (
                -s.alpha * ((shape[1:] + shape[:-1]) / 2 * np.diff(ratio)).sum()
            )  # alpha_s int_t^s L_j d(sigma / alpha)
            assert weights[index][j] == pytest.approx(wanted, rel=1e-4)


# --- the stochastic form


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("path", [Linear(), Cosine(), RectifiedFlow()], ids=name)
def test_the_sde_forms_law_on_a_gaussian_is_its_closed_form(path, order):
    # On a Gaussian x0 is affine in x, so mean and covariance go through a linear recursion over (x, x0 before).
    eps, sampler = whitened(200), SDEDPMSolverPP(12, order=order)
    steps = list(sampler.steps(TILTED.denoiser(path), path, path.start(eps), WhiteNoise(eps)))
    mean, covariance = np.zeros(4), np.zeros((4, 4))
    covariance[:2, :2] = path.prior_std**2 * np.eye(2)
    target, spread = TILTED.mean.numpy(), TILTED.covariance.numpy()
    previous = None
    for (t, s), step in zip(sampler.intervals(path)[:-1], steps, strict=False):
        h = s.lam - t.lam
        gain = t.alpha * spread @ np.linalg.inv(t.alpha**2 * spread + t.sigma**2 * np.eye(2))
        whole = s.alpha * -np.expm1(-2 * h)
        share = 0.0 if previous is None or order == 1 or previous.alpha == 0 else h / (t.lam - previous.lam) / 2
        x0 = np.block([[gain, np.zeros((2, 2))]])  # x0 = gain x + constant
        constant = target - gain @ (t.alpha * target)
        keep = s.sigma / t.sigma * np.exp(-h)
        move = np.vstack([keep * np.eye(2, 4) + whole * ((1 + share) * x0 - share * np.eye(2, 4, 2)), x0])
        mean = move @ mean + np.concatenate([whole * (1 + share) * constant, constant])
        covariance = move @ covariance @ move.T
        covariance[:2, :2] += s.sigma**2 * -np.expm1(-2 * h) * np.eye(2)
        previous = t
        np.testing.assert_allclose(step.x.mean(0), mean[:2], rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.cov(step.x.T), covariance[:2, :2], rtol=0, atol=1e-9)
