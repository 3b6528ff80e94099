import math

import numpy as np
import pytest
import torch
from diffusion_cases import PATHS, SAMPLERS, SPACINGS, name

from ldm.diffusion.paths import EDM, VE, Cosine, Linear, Path, RectifiedFlow, ScaledLinear
from ldm.diffusion.spacings import Karras, Leading, Linspace, LogSNR, Quadratic, Tail, TimeShift, Trailing

# The steps k that the conventions give for T = 1000, written out.
TEN = {
    "trailing": [999, 899, 799, 699, 599, 499, 399, 299, 199, 99],
    "leading": [900, 800, 700, 600, 500, 400, 300, 200, 100, 0],
    "linspace": [999, 888, 777, 666, 555, 444, 333, 222, 111, 0],
}
THIRTY = {
    "trailing": [999, 966, 932, 899, 866, 832, 799, 766, 732, 699, 666, 632, 599, 566, 532,
                 499, 466, 432, 399, 366, 332, 299, 266, 232, 199, 166, 132, 99, 66, 32],
    "leading": [957, 924, 891, 858, 825, 792, 759, 726, 693, 660, 627, 594, 561, 528, 495,
                462, 429, 396, 363, 330, 297, 264, 231, 198, 165, 132, 99, 66, 33, 0],
    "linspace": [999, 965, 930, 896, 861, 827, 792, 758, 723, 689, 655, 620, 586, 551, 517,
                 482, 448, 413, 379, 344, 310, 276, 241, 207, 172, 138, 103, 69, 34, 0],
}  # fmt: skip
TABLED = [Trailing(), Leading(), Linspace()]
OFF_GRID = (LogSNR, Karras)


def test_the_leaves_are_found():
    assert {"Trailing", "Quadratic", "LogSNR", "Karras", "Tail"} <= {name(spacing) for spacing in SPACINGS}


@pytest.mark.parametrize("spacing", TABLED, ids=name)
@pytest.mark.parametrize(("num_steps", "table"), [(10, TEN), (30, THIRTY)])
def test_discrete_spacings_are_the_published_ones(spacing, num_steps, table):
    grid = spacing.grid(num_steps, Linear())
    assert grid[:-1].tolist() == [(k + 1) / 1000 for k in table[name(spacing).lower()]]
    assert grid[-1] == 0


@pytest.mark.parametrize("spacing", SPACINGS, ids=name)
@pytest.mark.parametrize("path", [*PATHS, ScaledLinear(zero_terminal_snr=True)], ids=name)
def test_grids_fall_from_inside_the_path_to_zero(spacing, path):
    for num_steps in (1, 2, 3, 48, 600, 999, 1000, 1500):
        if not isinstance(spacing, OFF_GRID) and num_steps > (path.num_steps or math.inf):
            with pytest.raises(ValueError, match=f"choose at most {path.num_steps}"):
                spacing.grid(num_steps, path)
            continue
        grid = spacing.grid(num_steps, path)
        assert grid.shape == (num_steps + 1,)
        assert grid.dtype == torch.float64
        assert (grid.diff() < 0).all()
        assert grid[0] <= path.t_max
        assert grid[-2] >= path.t_min * (1 - 1e-12)
        assert grid[-1] == 0
        if not isinstance(spacing, Leading):
            assert grid[0] == path.t_max
        if not isinstance(spacing, (Trailing, Tail, TimeShift)) and num_steps > 1:
            assert float(grid[-2]) == pytest.approx(path.t_min, abs=1e-15)


@pytest.mark.parametrize("spacing", [*TABLED, Quadratic()], ids=name)
def test_no_step_of_a_discrete_path_is_visited_twice(spacing):
    for num_steps in range(1, 38):
        steps = spacing.grid(num_steps, Linear(num_steps=37))[:-1] * 37
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-12)
        assert (steps.round().diff() < 0).all()


def test_continuous_grids():
    assert Trailing().grid(4, RectifiedFlow()).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert Linspace().grid(3, Cosine()).tolist() == pytest.approx([0.999, 0.5, 0.001, 0])
    assert Leading().grid(2, Cosine()).tolist() == pytest.approx([0.5, 0.001, 0])
    assert float(Trailing().grid(5000, RectifiedFlow())[-2]) == pytest.approx(1e-3)


def test_more_steps_than_the_path_has_are_refused():
    with pytest.raises(ValueError, match="choose at most 1000"):
        Trailing().grid(1001, Linear())


def test_quadratic_is_that_of_ddim():
    # tau_i = floor(c i^2), c such that the last is T - 1.
    steps = (Quadratic().times(10, Linear()) * 1000 - 1).round()
    assert steps.tolist() == [math.floor(999 / 81 * i * i + 1e-9) for i in range(9, -1, -1)]
    assert (Quadratic().times(30, Linear(num_steps=30)) * 30).round().tolist() == list(range(30, 0, -1))
    assert Quadratic().times(3, RectifiedFlow()).tolist() == pytest.approx([1, 0.001 + 0.999 / 4, 0.001])


@pytest.mark.parametrize("path", [Cosine(), Linear(), VE()], ids=name)
def test_logsnr_steps_are_even(path):
    logsnr = path.logsnr(LogSNR().times(9, path))
    torch.testing.assert_close(logsnr.diff(), logsnr.diff().mean().expand(8), rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", [Cosine(), Linear(), VE()], ids=name)
@pytest.mark.parametrize("rho", [3.0, 7.0])
def test_karras_steps_are_eq_5_of_edm(path, rho):
    times = Karras(rho).times(9, path)
    high, low = (-path.logsnr(times[[0, -1]]) / 2).exp().tolist()
    ramp = np.linspace(0, 1, 9)
    expected = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    np.testing.assert_allclose((-path.logsnr(times) / 2).exp(), expected, rtol=1e-9)


def test_on_edm_even_strides_are_those_of_karras():
    torch.testing.assert_close(Linspace().times(18, EDM()), Karras(7).times(18, EDM()), rtol=1e-10, atol=0)


@pytest.mark.parametrize("path", [RectifiedFlow(), Linear(zero_terminal_snr=True)], ids=name)
@pytest.mark.parametrize("spacing", [LogSNR(), Karras()], ids=name)
def test_where_no_data_are_left_the_levels_begin_inside(spacing, path):
    times = spacing.times(6, path)
    assert times[0] == 1
    assert float(times[1]) == pytest.approx(1 - 0.01 * (1 - path.t_min))
    measure = path.logsnr(times[1:]) if isinstance(spacing, LogSNR) else (-path.logsnr(times[1:]) / 14).exp()
    torch.testing.assert_close(measure.diff(), measure.diff().mean().expand(4), rtol=1e-9, atol=0)


def test_tail_keeps_what_is_not_over_its_start():
    whole = Linspace().times(10, Linear())
    assert torch.equal(Tail(Linspace(), 0.5).times(10, Linear()), whole[whole <= 0.5])
    assert torch.equal(Tail(Trailing(), 0.6).times(10, Linear())[:1], torch.tensor([0.6], dtype=torch.float64))
    assert torch.equal(Tail(Trailing()).times(10, Cosine()), Trailing().times(10, Cosine()))
    with pytest.raises(ValueError, match=r"start=0.05 lies below all of 10 times, which end at 0.1"):
        Tail(Trailing(), 0.05).times(10, Linear())


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: Karras(0.0), "choose a number over 0"),
        (lambda: Tail(start=0.0), "choose over 0 and at most 1"),
        (lambda: Tail(start=1.5), "choose over 0 and at most 1"),
    ],
)
def test_what_spaces_no_steps_is_refused(make, advice):
    with pytest.raises(ValueError, match=advice):
        make()


@pytest.mark.parametrize("spacing", [LogSNR(), Karras()], ids=name)
def test_a_path_without_noise_has_no_levels(spacing):
    class Silent(Path):
        t_min, t_max = 0.0, 1.0

        def corrupt(self, x0, eps, t):
            return x0

        def start(self, eps):
            return eps

    with pytest.raises(ValueError, match=r"Silent adds no noise.*use Trailing or Linspace"):
        spacing.times(3, Silent())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_samplers_refuse_what_no_grid_has(sampler):
    with pytest.raises(ValueError, match="choose at least 1"):
        sampler(num_steps=0)


def test_the_time_shift_is_stable_diffusion_3s():
    t = Trailing().times(10, RectifiedFlow())
    shifted = TimeShift(shift=3.0).times(10, RectifiedFlow())
    torch.testing.assert_close(shifted, 3 * t / (1 + 2 * t))
    # which on RectifiedFlow is a shift of log-SNR
    torch.testing.assert_close(RectifiedFlow().logsnr(shifted)[1:], RectifiedFlow().logsnr(t)[1:] - 2 * math.log(3))
    torch.testing.assert_close(TimeShift(shift=1.0).times(10, Linear()), Trailing().times(10, Linear()))
    with pytest.raises(ValueError, match="moves no time; choose a number over 0"):
        TimeShift(shift=0.0)
