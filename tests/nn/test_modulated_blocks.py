"""The blocks of U-Nets, against their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm.nn.convnext import ModulatedConvNeXt
from ldm.nn.modulated_resnet import ModulatedResBlock
from ldm.nn.resnet import group_norm
from ldm.nn.standard_conv import StandardConv2d


def woken(block):
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.double()


def pictures(channels, *size):
    return torch.randn(2, channels, *size, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)


def test_both_kinds_start_as_the_shortcut():
    x, embedding = (tensor.float() for tensor in pictures(4, 3, 3))
    for block in (ModulatedResBlock(4, 4, 5), ModulatedResBlock(4, 4, 5, scale_shift=True), ModulatedConvNeXt(4, 4, 5)):
        assert torch.equal(block(x, embedding), x)


@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_residual_block_written_out(scale_shift):
    block = woken(ModulatedResBlock(4, 8, 5, scale_shift))
    x, embedding = pictures(4, 3, 5)
    told = (F.silu(embedding) @ block.modulation.weight.T + block.modulation.bias)[..., None, None]
    h = block.conv1(F.silu(F.group_norm(x, 1, block.norm1.weight, block.norm1.bias, 1e-5)))
    if scale_shift:
        h = F.group_norm(h, 2, block.norm2.weight, block.norm2.bias, 1e-5) * (1 + told[:, :8]) + told[:, 8:]
    else:
        h = F.group_norm(h + told, 2, block.norm2.weight, block.norm2.bias, 1e-5)
    torch.testing.assert_close(block(x, embedding), block.shortcut(x) + block.conv2(F.silu(h)))


@pytest.mark.parametrize(("way", "size"), [("down", (2, 3)), ("up", (8, 12))])
def test_a_resampling_block_resamples_what_it_adds_to(way, size):
    block = ModulatedResBlock(4, 4, 5, resample=way).double()
    x, embedding = pictures(4, 4, 6)
    out = block(x, embedding)
    assert out.shape[2:] == size
    small, large = (out, x) if way == "down" else (x, out)
    squares = large.reshape(2, 4, small.shape[2], 2, small.shape[3], 2)
    torch.testing.assert_close(squares.mean((3, 5)), small)
    if way == "up":
        assert torch.equal(squares.amin((3, 5)), squares.amax((3, 5)))
    assert woken(block)(x, embedding).shape[2:] == size


def test_a_convnext_block_written_out():
    block = woken(ModulatedConvNeXt(4, 6, 5, expansion=3))
    x, embedding = pictures(4, 3, 5)
    told = F.gelu(embedding) @ block.modulation.weight.T + block.modulation.bias
    alone = [F.conv2d(x[:, i : i + 1], block.depthwise.weight[i : i + 1], padding=3) for i in range(4)]
    h = torch.cat(alone, dim=1) + (block.depthwise.bias + told)[..., None, None]
    h = F.group_norm(h, 1, block.norm1.weight, block.norm1.bias)
    h = F.group_norm(F.gelu(block.conv1(h)), 1, block.norm2.weight, block.norm2.bias)
    torch.testing.assert_close(block(x, embedding), block.shortcut(x) + block.conv2(h))


def test_a_standardised_kernel_has_neither_size_nor_mean():
    conv = StandardConv2d(3, 4, 3, padding=1).double()
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    out = conv(x)
    seen = conv(torch.eye(27).double().reshape(27, 3, 3, 3))[:, :, 1, 1] - conv.bias  # the kernels that are used
    torch.testing.assert_close(seen.sum(0), torch.zeros(4).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.square().sum(0), torch.ones(4).double(), rtol=1e-4, atol=0)
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
    torch.testing.assert_close(conv(x), out, rtol=1e-3, atol=1e-4)


def test_groups_asked_for_are_the_groups_or_refused():
    assert group_norm(12, groups=6).num_groups == 6
    with pytest.raises(ValueError, match="5 groups does not divide 12"):
        group_norm(12, groups=5)
