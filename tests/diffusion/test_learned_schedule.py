import copy
import io

import pytest
import torch
from diffusion_cases import inner_times, normal
from torch import Tensor

from ldm.diffusion import Diffusion
from ldm.diffusion.paths import Cosine, LearnedSchedule
from ldm.diffusion.predictions import V


def bent(seed: int = 0) -> LearnedSchedule:
    """A schedule that has learned something: its weights moved at random."""
    path = LearnedSchedule()
    with torch.no_grad():
        for number, weight in enumerate(path.parameters()):
            weight += normal(weight.numel(), seed=seed + number).reshape(weight.shape).float()
    return path


def test_ends_stay_and_the_curve_falls_whatever_the_weights():
    t = torch.linspace(0.001, 1, 501, dtype=torch.float64)
    for seed in range(5):
        logsnr = bent(seed).logsnr(t)
        assert logsnr[[0, -1]].tolist() == pytest.approx([13.3, -5.0])
        assert (logsnr.diff() < 0).all()


def test_the_curve_is_the_papers_network():
    # gamma~(t) = l1(t) + l3(sigmoid(l2(l1(t)))) with positive weights, normalised to the two ends.
    path = bent()
    first, second, third, bias = (path.get_parameter(key).double() for key in ("first", "second", "third", "bias"))
    first, second, third = (torch.log1p(weight.exp()) for weight in (first, second, third))

    def network(u: Tensor) -> Tensor:
        return first * u + torch.sigmoid(first * u[:, None] * second + bias) @ third

    t = inner_times(path)
    low, high = network(torch.tensor([0.0, 1.0]).double())
    share = (network((t - 0.001) / 0.999) - low) / (high - low)
    torch.testing.assert_close(path.logsnr(t), 13.3 - 18.3 * share.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(path.noise_condition(t), 1000 * share.detach(), rtol=0, atol=1e-8)


def test_a_bent_schedule_keeps_the_contracts():
    path = bent()
    t = torch.cat([torch.linspace(1e-5, 9e-4, 7, dtype=torch.float64), inner_times(path)])
    torch.testing.assert_close(path.t_from_logsnr(path.logsnr(t)), t, rtol=0, atol=1e-10)
    for curve, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot), (path.logsnr, path.logsnr_dot)):
        times = t.clone().requires_grad_()
        (expected,) = torch.autograd.grad(curve(times).sum(), times)
        torch.testing.assert_close(slope(t), expected, rtol=1e-9, atol=1e-12)


def test_below_t_min_noise_over_data_is_proportional_to_time():
    path = LearnedSchedule()
    t = torch.tensor([0.0, 2e-4, 5e-4, 1e-3], dtype=torch.float64)
    ratio = path.sigma(t) / path.alpha(t)
    torch.testing.assert_close(ratio, ratio[-1] * t / 1e-3)
    assert (path.noise_condition(t) == 0).all()  # nothing below t_min is ever asked


def test_it_starts_as_nearly_a_straight_line():
    t = inner_times(LearnedSchedule())
    torch.testing.assert_close(LearnedSchedule().logsnr(t), 13.3 - 18.3 * (t - 0.001) / 0.999, rtol=0, atol=1.0)


def test_weights_belong_to_the_process_and_its_saved_state():
    diffusion = Diffusion(bent(), V())
    names = {key for key, _ in diffusion.named_parameters()}
    assert names == {f"path.{weight}" for weight in ("first", "second", "third", "bias")}
    file = io.BytesIO()
    torch.save(diffusion.state_dict(), file)
    file.seek(0)
    other = Diffusion(LearnedSchedule(), V())
    other.load_state_dict(torch.load(file, weights_only=True))
    t = torch.rand(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other.path.logsnr(t), diffusion.path.logsnr(t))


def test_only_the_relative_slope_reaches_the_weights():
    path, t = bent(), torch.linspace(0.01, 0.99, 5)
    for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot, path.logsnr, path.logsnr_dot,
              path.t_from_logsnr, path.noise_condition):  # fmt: skip
        assert not f(t).requires_grad
    for times in (t, t.double(), torch.tensor(0.3).double()):
        slope = path.relative_slope(times)
        assert slope.requires_grad
        assert slope.dtype == times.dtype
        torch.testing.assert_close(slope.detach(), torch.ones_like(times))


def test_the_gradient_is_that_of_the_slope_at_fixed_noise_levels():
    path, t = bent(), torch.tensor([0.1, 0.35, 0.8], dtype=torch.float64)
    path.double()
    levels, before = path.logsnr(t), path.logsnr_dot(t)
    h = 1e-5
    for index in range(3):
        (gradient,) = torch.autograd.grad(path.relative_slope(t)[index], path.bias)
        nudge = normal(path.width, seed=9 + index)
        slopes = []
        for sign in (1, -1):
            moved = copy.deepcopy(path)
            with torch.no_grad():
                moved.bias += sign * h * nudge
            slopes.append(moved.logsnr_dot(moved.t_from_logsnr(levels))[index])  # at the same level, another time
        expected = (slopes[0] - slopes[1]) / (2 * h) / before[index]
        assert float(gradient @ nudge) == pytest.approx(float(expected), rel=1e-5)


def test_it_learns_to_lower_the_variance_and_leaves_the_mean():
    # losses = gamma'(t) f(gamma(t)), whose mean is the integral of f over gamma whatever the schedule, and which
    # vary least when gamma' is proportional to 1 / f.
    def f(gamma: Tensor) -> Tensor:
        return 0.02 + (-(((gamma + 3) / 2) ** 2)).exp()

    def losses(path: LearnedSchedule, t: Tensor) -> Tensor:
        return -path.logsnr_dot(t) * f(-path.logsnr(t))

    gamma = torch.linspace(-13.3, 5, 20001, dtype=torch.float64)
    integral = float(torch.trapezoid(f(gamma), gamma)) / 0.999  # of times from 0.001 to 1
    t = 0.001 + 0.999 * (torch.arange(512, dtype=torch.float64) + 0.5) / 512
    path = LearnedSchedule()
    before = losses(path, t)
    optimizer = torch.optim.Adam(path.parameters(), lr=0.03)
    for _ in range(150):
        loss = losses(path, t)
        assert not loss.requires_grad
        spread = loss.square() * path.relative_slope(t)
        optimizer.zero_grad()
        (loss + (spread - spread.detach())).mean().backward()
        optimizer.step()
    after = losses(path, t)
    assert float(before.mean()) == pytest.approx(integral, rel=1e-3)
    assert float(after.mean()) == pytest.approx(integral, rel=1e-3)
    assert float(after.var()) < 0.1 * float(before.var())


def test_unlearned_paths_have_a_slope_without_a_gradient():
    slope = Cosine().relative_slope(torch.linspace(0, 1, 3))
    assert slope.tolist() == [1, 1, 1]
    assert not slope.requires_grad


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [({"logsnr_min": 14.0}, "choose logsnr_min < logsnr_max"), ({"width": 0}, "choose at least 1")],
)
def test_what_makes_no_schedule_is_refused(wrong, advice):
    with pytest.raises(ValueError, match=advice):
        LearnedSchedule(**wrong)
