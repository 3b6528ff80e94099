import pytest
import torch
from diffusion_cases import PATHS, SAMPLERS, name

from ldm.diffusion.paths import Cosine, Linear, RectifiedFlow
from ldm.diffusion.spacings import Leading, Linspace, Trailing

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


@pytest.mark.parametrize("spacing", TABLED, ids=name)
@pytest.mark.parametrize(("num_steps", "table"), [(10, TEN), (30, THIRTY)])
def test_discrete_spacings_are_the_published_ones(spacing, num_steps, table):
    grid = spacing.grid(num_steps, Linear())
    assert grid[:-1].tolist() == [(k + 1) / 1000 for k in table[name(spacing).lower()]]
    assert grid[-1] == 0


@pytest.mark.parametrize("spacing", TABLED, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 48, 600, 999, 1000])
def test_grids_fall_from_inside_the_path_to_zero(spacing, path, num_steps):
    grid = spacing.grid(num_steps, path)
    assert grid.shape == (num_steps + 1,)
    assert grid.dtype == torch.float64
    assert (grid.diff() < 0).all()
    assert grid[0] <= path.t_max
    assert grid[-2] >= path.t_min
    assert grid[-1] == 0
    if not isinstance(spacing, Leading):
        assert grid[0] == path.t_max
    if not isinstance(spacing, Trailing) and num_steps > 1:
        assert float(grid[-2]) == pytest.approx(path.t_min, abs=1e-15)


@pytest.mark.parametrize("spacing", TABLED, ids=name)
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


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_samplers_refuse_what_no_grid_has(sampler):
    with pytest.raises(ValueError, match="choose at least 1"):
        sampler(num_steps=0)
