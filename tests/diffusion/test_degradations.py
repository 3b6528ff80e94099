"""Degradations: paths that spoil images without noise (arXiv 2208.09392)."""

import math
from itertools import pairwise

import pytest
import torch
from diffusion_cases import leaves, name, normal
from torch import Tensor, nn

from ldm.diffusion import ColdDiffusion
from ldm.diffusion.degradations import Blur, Degradation, Fade, Pixelation

DEGRADATIONS: list[Degradation] = [leaf() for leaf in leaves(Degradation)]
every_degradation = pytest.mark.parametrize("path", DEGRADATIONS, ids=name)
X0 = normal(3, 2, 16, 16)


def time(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def grid(path: Degradation) -> list[float]:
    return [(k + 1) / path.num_steps for k in range(path.num_steps)]


def variation(x: Tensor) -> float:
    """What is left beside the mean of each channel."""
    return float((x - x.mean((2, 3), keepdim=True)).square().sum())


def test_every_degradation_is_found():
    assert {Blur, Fade, Pixelation} <= {type(path) for path in DEGRADATIONS}


@every_degradation
def test_nothing_is_spoiled_at_time_0(path):
    assert torch.equal(path.at(X0, time(0)), X0)


@every_degradation
def test_at_time_1_each_channel_is_constant(path):
    left = path.at(X0, time(1))
    assert variation(left) < 1e-20
    expected = torch.full_like(X0, path.color) if isinstance(path, Fade) else X0.mean((2, 3), keepdim=True)
    torch.testing.assert_close(left, expected.expand_as(X0), rtol=0, atol=1e-12)


@every_degradation
def test_more_is_gone_at_every_step(path):
    left = [(path.at(X0, time(t)) - path.at(X0, time(1))).abs().square().sum() for t in [0, *grid(path)]]
    assert all(later < earlier for earlier, later in pairwise(left))


@every_degradation
def test_it_is_affine_in_the_image(path):
    other = normal(*X0.shape, seed=1)
    for t in (0.3, 0.75):
        mixed = path.at(0.3 * X0 + 0.7 * other, time(t))
        torch.testing.assert_close(mixed, 0.3 * path.at(X0, time(t)) + 0.7 * path.at(other, time(t)))


@every_degradation
def test_each_sample_has_its_own_time(path):
    times = torch.tensor([path.t_min, 0.5, 1.0], dtype=torch.float64)
    alone = [path.at(x[None], t[None]) for x, t in zip(X0, times, strict=True)]
    torch.testing.assert_close(path.corrupt(X0, normal(*X0.shape), times), torch.cat(alone))


@every_degradation
def test_it_keeps_the_precision_and_grid_points_survive_it(path):
    for t in grid(path):
        assert float(path.snap(torch.tensor(t, dtype=torch.float32))) == pytest.approx(t, abs=1e-6)
    x0 = X0.float()
    half = path.at(x0, time(0.5))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), path.at(X0, time(0.5)), rtol=0, atol=1e-5)
    torch.testing.assert_close(path.at(x0, torch.full((3,), 0.5)), half)


@every_degradation
def test_uniform_numbers_give_each_step_equally_often(path):
    count = 5 * path.num_steps
    u = (torch.arange(count) + 0.5) / count
    snapped = ColdDiffusion(path).times(u)
    steps = (snapped * path.num_steps).round().long()
    assert torch.bincount(steps).tolist() == [0, *[5] * path.num_steps]


@every_degradation
def test_generation_starts_from_constant_channels_and_a_trace_of_noise(path):
    x = path.start(normal(2000, 2, 16, 16))
    levels = x.mean((2, 3))  # (2000, 2)
    mean, std = (torch.as_tensor(value).double().expand(2) for value in (path.start_mean, path.start_std))
    assert (levels.mean(0) - mean).abs().max() < 0.08
    assert (levels.std(0) - std).abs().max() < 0.05
    assert float((x - levels[:, :, None, None]).std()) == pytest.approx(path.start_noise, rel=0.01)


def test_each_channel_may_start_from_its_own_distribution():
    x = Blur(start_mean=[-3.0, 2.0], start_std=[0.0, 0.5], start_noise=0).start(normal(2000, 2, 4, 4))
    assert torch.equal(x[:, 0], torch.full_like(x[:, 0], -3))
    assert float(x[:, 1].mean()) == pytest.approx(2, abs=0.05)
    assert float(x[:, 1, 0, 0].std()) == pytest.approx(0.5, abs=0.03)


def test_blur_adds_up_the_variances_of_exponentially_growing_kernels():
    """Section 5.2: kernel k has std c e^(growth k/T); here they are applied one after the other."""
    path = Blur(num_steps=10, max_std=0.6, growth=2.0)
    kernels = [math.exp(2 * path.growth * k / 10) for k in range(10)]
    sums = torch.tensor(kernels, dtype=torch.float64).cumsum(0)
    expected = path.max_std * (sums / sums[-1]).sqrt()
    torch.testing.assert_close(path.std(torch.tensor(grid(path), dtype=torch.float64)), expected)


def test_blurring_twice_is_one_blur_of_the_summed_variances():
    path = Blur()
    one, two = time(0.3), time(0.5)
    variance = path.std(one) ** 2 + path.std(two) ** 2
    inside = variance / path.max_std**2 * math.expm1(2 * path.growth)
    both = torch.log1p(inside) / (2 * path.growth)
    assert float(path.std(both) ** 2) == pytest.approx(float(variance))
    torch.testing.assert_close(path.at(path.at(X0, one), two), path.at(X0, both))


def test_blur_is_convolution_with_a_gaussian_over_mirrored_borders():
    side, path = 16, Blur()
    t = time(0.45)
    std = float(path.std(t)) * side
    assert 1 < std < 4  # wide enough for samples of the Gaussian to sum up as its integral does
    place = torch.arange(-3 * side, 3 * side + 1, dtype=torch.float64)
    kernel = torch.exp(-place.square() / (2 * std**2))
    kernel /= kernel.sum()
    periods = torch.cat([X0, X0.flip(3)], 3).repeat(1, 1, 1, 5)  # mirrored, mirrored back, ...
    wide = torch.cat([periods, periods.flip(2)], 2).repeat(1, 1, 5, 1).reshape(6, 1, 10 * side, 10 * side)
    seen = nn.functional.conv2d(nn.functional.conv2d(wide, kernel[None, None, :, None]), kernel[None, None, None])
    first = 4 * side - 3 * side  # an even number of sides, less what the kernel takes off
    expected = seen[:, 0, first : first + side, first : first + side].reshape(X0.shape)
    torch.testing.assert_close(path.at(X0, t), expected, rtol=0, atol=1e-6)


def test_pixelation_averages_blocks_and_stays_when_repeated():
    path = Pixelation(num_steps=4)
    image = torch.arange(16.0).reshape(1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)  # 16 x 16
    for t in (0.25, 0.5):
        assert torch.equal(path.at(image, time(t)), image)  # blocks up to 4 x 4 hold one value already
    top_left = path.at(image, time(0.75))[0, 0, :8, :8]
    assert torch.equal(top_left, torch.full((8, 8), (0 + 1 + 4 + 5) / 4))
    assert torch.equal(path.at(image, time(0.6)), path.at(image, time(0.75)))  # a step begun is a step done
    finer, coarser = path.at(X0, time(0.25)), path.at(X0, time(0.75))
    torch.testing.assert_close(path.at(finer, time(0.75)), coarser)
    torch.testing.assert_close(path.at(coarser, time(0.25)), coarser)


def test_fade_multiplies_gaussian_holes():
    path = Fade(num_steps=5, max_width=0.5, color=0.25)
    rows = (torch.arange(16).double() + 0.5) / 8 - 1
    r2 = (rows[:, None] ** 2 + rows**2) / 2
    mask = torch.ones(16, 16, dtype=torch.float64)
    for i in (1, 2, 3):
        mask = mask * (1 - torch.exp(-r2 / (2 * (0.5 * i / 5) ** 2)))
    torch.testing.assert_close(path.at(X0, time(0.6)), mask * X0 + (1 - mask) * 0.25)
    assert mask[8, 8] < 0.1 < 0.9 < mask[0, 0]  # from the centre outwards
