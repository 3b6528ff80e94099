"""The ODE's likelihood of data whose exact denoiser and density are known."""

import math

import pytest
import torch
from diffusion_cases import ON_A_LINE, PATHS, SIXTEEN, TWO_MODES, Mixture, NoiseSource, forbidden_noise, name, normal
from torch import Tensor, nn

from ldm.diffusion import Diffusion
from ldm.diffusion.likelihood import ODE, AdaptiveODE, total
from ldm.diffusion.paths import Cosine, RectifiedFlow
from ldm.diffusion.predictions import V

ZERO = torch.zeros((), dtype=torch.float64)
POINTS = torch.tensor([[-1.5], [-1.1], [-0.3], [0.4], [0.9], [1.7]], dtype=torch.float64)


def nll(data: Mixture, x0: Tensor) -> Tensor:
    """In nats per dimension."""
    return -data.log_prob(Cosine(), x0, ZERO) / x0.shape[1]


@pytest.mark.parametrize("data", [ON_A_LINE, TWO_MODES, SIXTEEN], ids=["1", "2", "16"])
@pytest.mark.parametrize(
    "method", [ODE(60, exact_trace=True), AdaptiveODE(1e-7, 1e-7, exact_trace=True)], ids=["fixed", "adaptive"]
)
def test_the_ode_gives_the_exact_likelihood(method, data):
    path = RectifiedFlow()  # its noisy end is N(0, 1) exactly
    x0 = data.draw(6)
    found = total(method.terms(data.denoiser(path), path, x0, forbidden_noise))
    torch.testing.assert_close(found, nll(data, x0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_on_every_path_it_is_exact_but_for_the_two_ends(path):
    """In one dimension the ODE keeps quantiles, so its own density is a closed form."""
    start, end = (torch.tensor(t, dtype=torch.float64) for t in (path.t_min, path.t_max))
    with torch.no_grad():
        x, alpha = path.alpha(start) * POINTS, path.alpha(start)
        wanted = ON_A_LINE._cdf(path, x, start)
        low, high = torch.full_like(x, -1000), torch.full_like(x, 1000)
        for _ in range(70):
            middle = (low + high) / 2
            over = ON_A_LINE._cdf(path, middle, end) > wanted
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        prior = torch.distributions.Normal(0.0, path.prior_std)
        ends = prior.log_prob(low[:, 0]) - ON_A_LINE.log_prob(path, low, end)
        expected = -(ON_A_LINE.log_prob(path, x, start) + ends + alpha.log())
    method = ODE(20 if path.learns else 60, exact_trace=True)
    found = total(method.terms(ON_A_LINE.denoiser(path), path, POINTS, forbidden_noise))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert (found - nll(ON_A_LINE, POINTS)).abs().max() < 0.15  # and the ends are near


def test_fixed_steps_are_of_order_four():
    path, exact = RectifiedFlow(), ODE(200, exact_trace=True, start=0.01)
    runs = [*(ODE(steps, exact_trace=True, start=0.01) for steps in (25, 50)), exact]
    found = [total(run.terms(ON_A_LINE.denoiser(path), path, POINTS, forbidden_noise)) for run in runs]
    errors = [float((each - found[-1]).abs().max()) for each in found[:-1]]
    assert math.log2(errors[0] / errors[1]) > 3.5


def test_an_earlier_start_blurs_less():
    path, errors = RectifiedFlow(), []
    for start in (0.1, 0.03, None):
        method = ODE(60, exact_trace=True, start=start)
        found = total(method.terms(ON_A_LINE.denoiser(path), path, POINTS, forbidden_noise))
        errors.append(float((found - nll(ON_A_LINE, POINTS)).abs().max()))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


class Signs:
    """Gives the tensors it is made of, one after the other."""

    def __init__(self, *drawn: Tensor) -> None:
        self.drawn = list(drawn)

    def __call__(self) -> Tensor:
        return self.drawn.pop(0)


def test_probes_are_right_on_the_mean():
    """Over all four sign patterns of two dimensions the mean of Hutchinson's estimate is the exact trace."""
    path, x0 = RectifiedFlow(), TWO_MODES.draw(5)
    patterns = [torch.tensor(p, dtype=torch.float64).expand(5, 2) for p in ((1, 1), (1, -1), (-1, 1), (-1, -1))]

    def estimate(*probes: Tensor) -> Tensor:
        return total(ODE(10, num_probes=len(probes)).terms(TWO_MODES.denoiser(path), path, x0, Signs(*probes)))

    each = torch.stack([estimate(pattern) for pattern in patterns])
    exact = total(ODE(10, exact_trace=True).terms(TWO_MODES.denoiser(path), path, x0, forbidden_noise))
    assert (each - exact).abs().max() > 0.01
    torch.testing.assert_close(each.mean(0), exact)
    torch.testing.assert_close(estimate(*patterns), exact)  # and several probes are averaged


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference"])
@pytest.mark.parametrize("method", [ODE(2), AdaptiveODE(0.1, 0.1)], ids=name)
def test_the_divergence_is_found_where_nothing_else_is_differentiated(method, mode):
    net = nn.Conv2d(2, 2, 3, padding=1).requires_grad_(False)
    diffusion = Diffusion(Cosine(), V())
    with mode():
        x0 = normal(3, 2, 4, 4, dtype=torch.float32)
        denoise = diffusion.denoiser(lambda x_t, heard, cond: net(x_t), None)
        found = total(method.terms(denoise, Cosine(), x0, NoiseSource(x0)))
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


@pytest.mark.parametrize("method", [ODE(8, exact_trace=True), AdaptiveODE(1e-4, 1e-4, exact_trace=True)], ids=name)
def test_the_ode_spreads_pixels_over_their_bins(method):
    path, pixels = RectifiedFlow(), torch.tensor([[-1.0], [0.2], [1.0]], dtype=torch.float64)
    u = torch.tensor([[0.1], [0.5], [0.8]], dtype=torch.float64)
    found = total(method.terms(ON_A_LINE.denoiser(path), path, pixels, Signs(torch.special.ndtri(u)), levels=256))
    spread = pixels + (u - 0.5) / 127.5
    density = total(method.terms(ON_A_LINE.denoiser(path), path, spread, forbidden_noise))
    torch.testing.assert_close(found, density + math.log(127.5))
