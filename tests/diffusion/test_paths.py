import copy
import math
import pickle

import pytest
import torch
from diffusion_cases import PATHS, inner_times, name, normal
from torch import Tensor

from ldm.diffusion.paths import (
    EDM,
    VE,
    VPSDE,
    Cosine,
    DiscretePath,
    Linear,
    NoiseLevels,
    NoisePath,
    RectifiedFlow,
    Respaced,
    ScaledLinear,
    Shifted,
    SubVP,
)

# Every leaf as it comes, then options that change the curves' form.
MANY: list[NoisePath] = [
    *PATHS,
    Linear(zero_terminal_snr=True),
    Respaced(ScaledLinear(zero_terminal_snr=True), 500),
    Shifted(Linear(zero_terminal_snr=True), logsnr_shift=-2.0),
    Shifted(RectifiedFlow(), time_shift=3.0),
    Shifted(Cosine(), size_ratio=4.0),
    Shifted(VPSDE(), size_ratio=0.5),
    Shifted(SubVP(), logsnr_shift=1.5),
    Shifted(VE(), logsnr_shift=-1.0),
    Shifted(EDM(), logsnr_shift=0.5),
    Shifted(NoiseLevels(), logsnr_shift=0.7),
]
DISCRETE = [path for path in MANY if path.num_steps is not None]
every_path = pytest.mark.parametrize("path", MANY, ids=lambda path: case(path))
every_discrete_path = pytest.mark.parametrize("path", DISCRETE, ids=lambda path: case(path))


def case(path: NoisePath) -> str:
    """The id of a test case: its class, and that of the path inside."""
    inner = getattr(path, "path", None)
    return name(path) if inner is None else f"{name(path)}-{name(inner)}"


def grid(path: NoisePath, dtype: torch.dtype = torch.float64) -> Tensor:
    assert path.num_steps is not None
    return torch.arange(1, path.num_steps + 1, dtype=dtype) / path.num_steps


def test_the_leaves_are_found():
    assert {"Linear", "Laplace", "Cosine", "NoiseLevels", "Shifted", "LearnedSchedule"} <= {
        name(path) for path in PATHS
    }


@every_path
@pytest.mark.parametrize("curve", ["alpha", "sigma"])
def test_derivatives_are_those_of_autograd(path, curve):
    t = inner_times(path).requires_grad_()
    (slope,) = torch.autograd.grad((getattr(path, curve)(t) + 0 * t).sum(), t)  # some curves do not depend on t
    torch.testing.assert_close(getattr(path, f"{curve}_dot")(t.detach()), slope, rtol=1e-9, atol=1e-12)


@every_path
@pytest.mark.parametrize("curve", ["alpha", "sigma"])
def test_derivatives_are_those_of_finite_differences(path, curve):
    t = (31 * torch.arange(31, dtype=torch.float64) + 20.37) / 1000  # between the points of a grid of 1000
    h = 1e-6
    slope = (getattr(path, curve)(t + h) - getattr(path, curve)(t - h)) / (2 * h)
    torch.testing.assert_close(getattr(path, f"{curve}_dot")(t), slope, rtol=1e-6, atol=1e-8)


@every_path
def test_derivatives_are_finite_but_for_that_of_sigma_at_zero(path):
    t = torch.cat([torch.zeros(1), inner_times(path)]).double()
    assert path.alpha_dot(t).isfinite().all()
    assert path.sigma_dot(t)[1:].isfinite().all()
    assert path.sigma_dot(t[:1]) > 0
    inside = t[1:][path.alpha(t[1:]) > 0]
    slope = 2 * (path.alpha_dot(inside) / path.alpha(inside) - path.sigma_dot(inside) / path.sigma(inside))
    torch.testing.assert_close(path.logsnr_dot(inside), slope, rtol=1e-9, atol=1e-9)


@every_path
def test_data_at_zero(path):
    zero = torch.zeros((), dtype=torch.float64)
    assert path.alpha(zero) == 1
    assert path.sigma(zero) == 0
    assert path.logsnr(zero) == math.inf


@every_path
def test_logsnr_is_its_definition_and_falls(path):
    t = inner_times(path)
    logsnr = path.logsnr(t)
    torch.testing.assert_close(logsnr, 2 * (path.alpha(t) / path.sigma(t)).log(), rtol=1e-9, atol=1e-9)
    assert (logsnr.diff() < 0).all()


@every_path
def test_norm_is_one_on_the_path_and_homogeneous(path):
    t = inner_times(path)
    alpha, sigma = path.alpha(t), path.sigma(t)
    torch.testing.assert_close(path.norm(alpha, sigma), torch.ones_like(t), rtol=0, atol=1e-12)
    torch.testing.assert_close(path.norm(3 * alpha, 3 * (sigma + 1)), 3 * path.norm(alpha, sigma + 1))


@every_path
def test_t_from_logsnr_inverts_logsnr(path):
    t = inner_times(path)
    torch.testing.assert_close(path.t_from_logsnr(path.logsnr(t)), t, rtol=0, atol=1e-10)
    torch.testing.assert_close(path.t_from_logsnr(path.logsnr(t).float()), t.float(), rtol=0, atol=1e-5)
    ends = path.t_from_logsnr(torch.tensor([math.inf, -math.inf], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=0)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_functions_of_t_keep_shape_and_dtype(path, dtype, shape):
    t = torch.full(shape, 0.3, dtype=dtype)
    for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot, path.logsnr, path.t_from_logsnr,
              path.noise_condition, path.snap):  # fmt: skip
        assert f(t).shape == t.shape
        assert f(t).dtype == dtype


@every_path
def test_float32_times_lose_only_float32_digits(path):
    # Seen against the size of the time's own rounding, 6e-8, times the slope of each curve.
    t = inner_times(path).float()
    exact = t.double()
    for curve, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        error = (curve(t).double() - curve(exact)).abs()
        assert (error <= 3e-7 * (curve(exact) + slope(exact).abs())).all()


@every_path
def test_corrupt_is_its_definition_and_implied_eps_inverts_it(path):
    x0, eps, t = normal(97, 3, 2, 2, seed=1), normal(97, 3, 2, 2, seed=2), inner_times(path)
    x_t = path.corrupt(x0, eps, t)
    torch.testing.assert_close(x_t[5], path.alpha(t[5]) * x0[5] + path.sigma(t[5]) * eps[5])
    torch.testing.assert_close(path.implied_eps(x_t, x0, t), eps, rtol=0, atol=1e-9)
    torch.testing.assert_close(path.implied_eps(x_t[5], x0[5], t[5]), eps[5], rtol=0, atol=1e-9)
    assert path.corrupt(x0.float(), eps.float(), t).dtype == torch.float32


@every_path
def test_prior_std(path):
    t = torch.tensor(path.t_max, dtype=torch.float64)
    assert path.prior_std == pytest.approx(float((path.alpha(t) ** 2 + path.sigma(t) ** 2).sqrt()), rel=1e-14)


@every_path
def test_snap_is_idempotent_and_lands_inside(path):
    for dtype in (torch.float32, torch.float64):
        snapped = path.snap(torch.linspace(0, 1, 4001, dtype=dtype))
        assert torch.equal(path.snap(snapped), snapped)
        assert float(snapped.min()) == pytest.approx(path.t_min, rel=1e-6)
        assert float(snapped.max()) == pytest.approx(path.t_max, rel=1e-6)


@every_path
def test_a_path_can_be_copied_and_pickled(path):
    t = inner_times(path)
    for copied in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        assert torch.equal(copied.logsnr(t), path.logsnr(t))


# --- discrete paths


def test_linear_and_scaled_linear_are_the_published_tables():
    linear = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scaled = torch.linspace(8.5e-4**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    for path, betas in ((Linear(), linear), (ScaledLinear(), scaled)):
        alpha_bar = torch.cumprod(1 - betas, 0)
        t = grid(path)
        torch.testing.assert_close(path.alpha(t) ** 2, alpha_bar, rtol=0, atol=1e-12)
        torch.testing.assert_close(path.sigma(t) ** 2, 1 - alpha_bar, rtol=0, atol=1e-12)
        torch.testing.assert_close(path.logsnr(t), (alpha_bar / (1 - alpha_bar)).log(), rtol=0, atol=1e-9)
    # The numbers everybody's tables end with.
    last = torch.ones((), dtype=torch.float64)
    assert float(Linear().alpha(last)) ** 2 == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(ScaledLinear().alpha(last)) ** 2 == pytest.approx(4.6601e-3, rel=1e-4)


@pytest.mark.parametrize("path", [path for path in PATHS if path.num_steps is not None], ids=name)
def test_float32_grid_times_give_the_table_itself(path):
    exact = path.alpha(grid(path)).float()
    assert torch.equal(path.alpha(grid(path, torch.float32)), exact)


@pytest.mark.parametrize("path", [path for path in DISCRETE if isinstance(path, DiscretePath)], ids=lambda p: case(p))
def test_log_alpha_bar_runs_straight_between_grid_points(path):
    t = grid(path)[:-1]  # alpha does so on the last piece of a path to pure noise
    middle = (t[1:] + t[:-1]) / 2
    straight = (path.alpha(t[1:]).log() + path.alpha(t[:-1]).log()) / 2
    torch.testing.assert_close(path.alpha(middle).log(), straight, rtol=0, atol=1e-12)


@every_discrete_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_hears_whole_steps(path, dtype):
    heard = path.noise_condition(grid(path, dtype))
    if isinstance(path, Respaced):
        assert torch.equal(heard, heard.round())
        assert (heard[0], heard[-1]) == (0, path.path.num_steps - 1)
    else:
        assert torch.equal(heard, torch.arange(path.num_steps, dtype=dtype))


@every_discrete_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_u_gives_uniform_steps(path, dtype):
    each = 16
    u = (torch.arange(each * path.num_steps, dtype=dtype) + 0.5) / (each * path.num_steps)
    steps = (path.snap(u) * path.num_steps - 1).round().long()
    assert torch.equal(steps.bincount(), torch.full((path.num_steps,), each))
    assert path.noise_condition(path.snap(torch.zeros((), dtype=dtype))) == 0


@pytest.mark.parametrize("path", [path for path in PATHS if path.num_steps is None], ids=name)
def test_continuous_time(path):
    t = torch.tensor([0.0, 0.25, 1.0])
    if name(path) not in ("EDM", "LearnedSchedule"):  # which hear the noise level itself
        assert torch.equal(path.noise_condition(t), 1000 * t)
    assert path.snap(t).tolist() == pytest.approx([path.t_min, 0.25, path.t_max])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_short_discrete_paths(steps):
    path = Linear(0.1, 0.5, steps)
    t = grid(path)
    betas = torch.linspace(0.1, 0.5, steps, dtype=torch.float64)
    torch.testing.assert_close(path.alpha(t) ** 2, torch.cumprod(1 - betas, 0), rtol=0, atol=1e-12)
    torch.testing.assert_close(path.t_from_logsnr(path.logsnr(t)), t, rtol=0, atol=1e-12)


def test_discrete_path_is_no_leaf():
    with pytest.raises(TypeError):
        DiscretePath(torch.tensor([0.1]))


@pytest.mark.parametrize("leaf", [Linear, ScaledLinear])
@pytest.mark.parametrize(
    "wrong", [{"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_start": 0.5, "beta_end": 0.1}, {"beta_end": math.nan}]
)
def test_betas_out_of_range_are_refused(leaf, wrong):
    with pytest.raises(ValueError, match="choose 0 < beta_start <= beta_end < 1"):
        leaf(**wrong)


@pytest.mark.parametrize("leaf", [Linear, ScaledLinear])
def test_a_path_of_no_steps_is_refused(leaf):
    with pytest.raises(ValueError, match="choose at least 1"):
        leaf(num_steps=0)


# --- continuous paths


def test_closed_forms():
    t = inner_times(Cosine())
    torch.testing.assert_close(Cosine().alpha(t), torch.cos(math.pi * t / 2), rtol=0, atol=1e-15)
    torch.testing.assert_close(Cosine().logsnr(t), -2 * torch.tan(math.pi * t / 2).log(), rtol=0, atol=1e-11)
    torch.testing.assert_close(RectifiedFlow().alpha(t), 1 - t)
    torch.testing.assert_close(RectifiedFlow().logsnr(t), -2 * torch.logit(t))
    assert RectifiedFlow().logsnr(torch.ones(())) == -math.inf
    assert RectifiedFlow().prior_std == 1
