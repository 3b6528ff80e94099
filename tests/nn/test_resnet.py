"""The group norm in half precision and in channels_last, against its definition in float64."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from ldm.nn.resnet import GroupNorm, group_norm

FORMATS = [torch.contiguous_format, torch.channels_last]


def maps(mean: float, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """(2, 16, 96, 96), 36,864 values a group: a sum in bfloat16 would stand still after a few hundred of them."""
    x = torch.randn(2, 16, 96, 96, generator=torch.Generator().manual_seed(0)) + mean
    return x.to(dtype).contiguous(memory_format=memory_format)


def defined(x: Tensor) -> Tensor:
    groups = x.double().unflatten(1, (4, 4))
    variance, mean = torch.var_mean(groups, dim=(2, 3, 4), correction=0, keepdim=True)
    return ((groups - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("autocast", [True, False])
def test_statistics_are_float32_in_half_precision(
    autocast: bool, mean: float, memory_format: torch.memory_format
) -> None:
    """The only error is the rounding of the result: a statistic of 8 bits would be off by 0.06 at a mean of 30."""
    x = maps(mean, torch.bfloat16, memory_format)
    norm = group_norm(16) if autocast else group_norm(16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        y = norm(x).double()
    error, exact = (y - defined(x)).abs(), defined(x).abs()
    assert (error <= exact * 2**-8 + 1e-4).all()


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_float32_is_as_exact_in_channels_last(mean: float) -> None:
    errors = []
    for memory_format in FORMATS:
        x = maps(mean, torch.float32, memory_format)
        errors.append((group_norm(16)(x) - defined(x)).abs().max())
    assert max(errors) < 2e-5


def test_channels_last_changes_no_gradient() -> None:
    torch.manual_seed(0)
    norm, cotangent = group_norm(16).double(), torch.randn(2, 16, 96, 96, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    gradients = []
    for memory_format in FORMATS:
        x = maps(2.0, torch.float64, memory_format).requires_grad_()
        gradients.append(torch.autograd.grad((norm(x) * cotangent).sum(), [x, norm.weight, norm.bias]))
    torch.testing.assert_close(*gradients)


def test_the_output_has_the_format_of_the_input() -> None:
    for memory_format in FORMATS:
        assert GroupNorm(4, 16)(maps(0, torch.bfloat16, memory_format)).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match="choose a divisor"):
        group_norm(16, groups=groups)
