import pytest
import torch
from diffusion_cases import PAIRS, PATHS, PREDICTIONS, inner_times, name, normal, pair_name

from ldm.diffusion.paths import Cosine, Linear, RectifiedFlow
from ldm.diffusion.predictions import X0, Eps, V, Velocity

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=pair_name)


def test_the_leaves_are_found():
    assert {"Eps", "X0", "V", "Velocity"} <= {name(prediction) for prediction in PREDICTIONS}


@every_pair
def test_round_trip_through_x0(pair):
    path, prediction = pair
    x0, eps, t = normal(97, 3, 2, 2, seed=1), normal(97, 3, 2, 2, seed=2), inner_times(path)
    output = prediction.target(x0, eps, t, path)
    again = prediction.to_x0(output, path.corrupt(x0, eps, t), t, path)
    torch.testing.assert_close(again, x0, rtol=0, atol=1e-9)


@every_pair
def test_error_ratio_is_the_ratio_of_squared_errors(pair):
    path, prediction = pair
    x0, eps, t = normal(97, 8, seed=1), normal(97, 8, seed=2), inner_times(path)
    x_t, wrong = path.corrupt(x0, eps, t), 0.1 * normal(97, 8, seed=3)
    output = prediction.target(x0, eps, t, path) + wrong
    x0_error = (prediction.to_x0(output, x_t, t, path) - x0).square().sum(1)
    ratio = wrong.square().sum(1) / x0_error
    torch.testing.assert_close(prediction.error_ratio(t, path), ratio, rtol=1e-6, atol=0)


@every_pair
def test_dtypes_stay(pair):
    path, prediction = pair
    x0, eps, t = normal(4, 3, seed=1).float(), normal(4, 3, seed=2).float(), inner_times(path, 6)[1:5]
    for times in (t, t.float()):
        target = prediction.target(x0, eps, times, path)
        assert target.dtype == torch.float32
        assert prediction.to_x0(target, path.corrupt(x0, eps, times), times, path).dtype == torch.float32
        assert prediction.error_ratio(times, path).dtype == times.dtype


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_velocity_is_the_time_derivative_of_x_t(path):
    x0, eps, h = normal(31, 2, seed=1), normal(31, 2, seed=2), 1e-6
    t = (31 * torch.arange(31, dtype=torch.float64) + 20.37) / 1000
    slope = (path.corrupt(x0, eps, t + h) - path.corrupt(x0, eps, t - h)) / (2 * h)
    torch.testing.assert_close(Velocity().target(x0, eps, t, path), slope, rtol=1e-5, atol=1e-7)


def test_v_is_not_velocity():
    x0, eps, t = normal(5, 2, seed=1), normal(5, 2, seed=2), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    flow = RectifiedFlow()
    torch.testing.assert_close(Velocity().target(x0, eps, t, flow), eps - x0)
    torch.testing.assert_close(V().target(x0, eps, t, flow), (1 - t)[:, None] * eps - t[:, None] * x0)
    # On the cosine path the angle is pi t / 2, so there the two differ by that factor only.
    velocity, v = Velocity().target(x0, eps, t, Cosine()), V().target(x0, eps, t, Cosine())
    torch.testing.assert_close(velocity, torch.pi / 2 * v)


def test_eps_is_refused_where_no_data_is_left():
    with pytest.raises(ValueError, match=r"Eps has no meaning on RectifiedFlow.*Use the prediction Velocity"):
        Eps().check(RectifiedFlow())
    Eps().check(Linear())
    for prediction in (X0(), V(), Velocity()):
        prediction.check(RectifiedFlow())
