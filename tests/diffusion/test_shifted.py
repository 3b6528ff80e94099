import math

import pytest
import torch
from diffusion_cases import PATHS, inner_times, name

from ldm.diffusion.paths import EDM, VE, Cosine, LearnedSchedule, Linear, RectifiedFlow, Shifted, level

UNLEARNED = [path for path in PATHS if not path.learns]


@pytest.mark.parametrize("path", UNLEARNED, ids=name)
def test_logsnr_moves_and_the_kind_of_path_stays(path):
    shifted, t = Shifted(path, logsnr_shift=-1.3), inner_times(path)
    torch.testing.assert_close(shifted.logsnr(t), path.logsnr(t) - 1.3, rtol=0, atol=1e-12)
    alpha, sigma = shifted.alpha(t), shifted.sigma(t)
    torch.testing.assert_close(path.norm(alpha, sigma), torch.ones_like(t), rtol=0, atol=1e-12)
    torch.testing.assert_close(2 * (alpha / sigma).log(), shifted.logsnr(t), rtol=0, atol=1e-9)
    assert torch.equal(shifted.noise_condition(t), path.noise_condition(t))
    assert torch.equal(shifted.snap(t), path.snap(t))


@pytest.mark.parametrize("path", UNLEARNED, ids=name)
def test_where_the_path_has_that_level_a_shift_stays_on_it(path):
    # The shifted path runs along the same curve in (alpha, sigma), only at other times.
    shifted, t = Shifted(path, logsnr_shift=0.8), inner_times(path)[5:-1]
    there = path.t_from_logsnr(shifted.logsnr(t))
    torch.testing.assert_close(shifted.alpha(t), path.alpha(there), rtol=0, atol=1e-9)
    torch.testing.assert_close(shifted.sigma(t), path.sigma(there), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("s", [0.5, 3.0])
def test_time_shift_is_that_of_stable_diffusion_3(s):
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    moved = s * t / (1 + (s - 1) * t)
    shifted = Shifted(RectifiedFlow(), time_shift=s)
    torch.testing.assert_close(shifted.sigma(t), moved)
    torch.testing.assert_close(shifted.alpha(t), 1 - moved)
    torch.testing.assert_close(shifted.sigma_dot(t), s / (1 + (s - 1) * t) ** 2)  # both ends too
    torch.testing.assert_close(shifted.alpha_dot(t), -s / (1 + (s - 1) * t) ** 2, rtol=1e-5, atol=1e-12)
    end = level(shifted, 1.0)
    assert (end.alpha, end.sigma, end.logsnr, end.alpha_dot) == (0, 1, -math.inf, pytest.approx(-1 / s))


def test_size_ratio_is_that_of_simple_diffusion():
    # logsnr of images of 256 is that of 64, plus 2 log(64 / 256); on the cosine path -2 log tan(pi t / 2) + ...
    t = inner_times(Cosine())
    expected = -2 * torch.tan(math.pi * t / 2).log() + 2 * math.log(64 / 256)
    torch.testing.assert_close(Shifted(Cosine(), size_ratio=256 / 64).logsnr(t), expected, rtol=0, atol=1e-10)


def test_shifts_add_up():
    path = Shifted(Linear(), logsnr_shift=0.3, size_ratio=2.0, time_shift=1.5)
    assert path.shift == pytest.approx(0.3 - 2 * math.log(3))
    again = Shifted(Shifted(Linear(), logsnr_shift=0.3), size_ratio=3.0)
    t = inner_times(path)
    torch.testing.assert_close(path.alpha(t), again.alpha(t), rtol=0, atol=1e-12)
    torch.testing.assert_close(path.sigma_dot(t), again.sigma_dot(t), rtol=1e-10, atol=0)


def test_the_rest_is_that_of_the_path():
    path, shifted = EDM(sigma_data=0.5), Shifted(EDM(sigma_data=0.5), logsnr_shift=2 * math.log(2))
    assert (shifted.rho, shifted.sigma_data, shifted.t_min, shifted.t_max) == (7, 0.5, path.t_min, 1)
    assert shifted.prior_std == pytest.approx(math.hypot(40, 0.5))
    x, t = torch.full((1, 1), math.hypot(40, 0.5)).double(), torch.ones(1).double()
    torch.testing.assert_close(shifted.net_input(x, t), torch.ones(1, 1).double())  # its own sigma, not the path's
    assert Shifted(Linear(num_steps=7)).num_steps == 7
    with torch.inference_mode():
        assert level(Shifted(VE(), logsnr_shift=1.0), 0.5).alpha_dot == 0


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"logsnr_shift": math.inf}, "choose a finite number"),
        ({"size_ratio": 0.0}, "size_ratio=0.0 is no ratio"),
        ({"time_shift": math.nan}, "time_shift=nan is no ratio"),
        ({"path": LearnedSchedule()}, "use it without Shifted"),
    ],
)
def test_what_is_no_shift_is_refused(wrong, advice):
    with pytest.raises(ValueError, match=advice):
        Shifted(**wrong)
