"""The shortcuts of deep-compression resampling are an averaging, a repeating, and inverse to each other."""

import pytest
import torch
from torch import Tensor, nn

from ldm.nn.resample import ResidualDownsample, ResidualUpsample

WIDTHS = [(4, 4), (4, 8), (4, 16), (8, 4), (6, 12), (12, 6)]  # outer and inner


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def shortcut(module: nn.Module) -> nn.Module:
    """The module with a convolution of zeros: its shortcut alone."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module.double()


@pytest.mark.parametrize(("outer", "inner"), WIDTHS)
def test_down_after_up_is_the_identity(outer: int, inner: int) -> None:
    down, up = shortcut(ResidualDownsample(outer, inner)), shortcut(ResidualUpsample(inner, outer))
    x = random(2, inner, 3, 5)
    torch.testing.assert_close(down(up(x)), x)


@pytest.mark.parametrize(("outer", "inner"), WIDTHS)
def test_up_after_down_is_the_orthogonal_projection_on_what_up_can_make(outer: int, inner: int) -> None:
    down, up = shortcut(ResidualDownsample(outer, inner)), shortcut(ResidualUpsample(inner, outer))
    x, z = random(2, outer, 6, 4), random(2, inner, 3, 2)
    projected = up(down(x))
    torch.testing.assert_close(up(down(projected)), projected)
    torch.testing.assert_close(up(down(up(z))), up(z))
    torch.testing.assert_close(((x - projected) * up(z)).sum(), torch.zeros((), dtype=x.dtype), atol=1e-9, rtol=0)
    assert torch.allclose(projected, x) == (inner == 4 * outer)  # nothing is lost only if nothing is averaged


def test_at_equal_width_the_shortcuts_are_the_mean_of_2x2_and_its_repetition() -> None:
    x = random(2, 4, 6, 8)
    mean = nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(shortcut(ResidualDownsample(4, 4))(x), mean)
    torch.testing.assert_close(shortcut(ResidualUpsample(4, 4))(mean), nn.functional.interpolate(mean, scale_factor=2))


def test_at_double_width_the_mean_is_over_neighbours_in_a_row() -> None:
    x = random(1, 3, 4, 4)
    rows = nn.functional.avg_pool2d(x, (1, 2))  # (1, 3, 4, 2)
    expected = torch.stack([rows[:, :, 0::2], rows[:, :, 1::2]], dim=2).flatten(1, 2)
    torch.testing.assert_close(shortcut(ResidualDownsample(3, 6))(x), expected)


def test_the_convolutions_are_added_to_the_shortcuts() -> None:
    torch.manual_seed(0)
    down, up = ResidualDownsample(4, 8).double(), ResidualUpsample(8, 4).double()
    x, z = random(1, 4, 6, 6), random(1, 8, 3, 3)
    learned_down = down.conv(nn.functional.pad(x, (0, 1, 0, 1)))
    learned_up = nn.functional.pixel_shuffle(up.conv(z), 2)
    without_down, without_up = down(x) - learned_down, up(z) - learned_up
    torch.testing.assert_close(shortcut(down)(x), without_down)
    torch.testing.assert_close(shortcut(up)(z), without_up)


@pytest.mark.parametrize(("kind", "widths"), [(ResidualDownsample, (4, 3)), (ResidualUpsample, (5, 4))])
def test_widths_that_do_not_divide_are_refused(kind: type[nn.Module], widths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="each divides 4 times its neighbour"):
        kind(*widths)
