"""Embeddings of the place: on the grid they are made for, and on others."""

import pytest
import torch
from torch import nn

from ldm.networks import Conditioning, DiT
from ldm.networks.positions import Fractional, Learned, NoPositions, Positions, SinCos
from ldm.nn.embeddings import grid_sinusoids

ALL = [SinCos(), SinCos(base_size=3), Learned(), Fractional(), Fractional(finest=2), NoPositions()]


def test_every_leaf_is_tested():
    assert {type(positions) for positions in ALL} == set(Positions.__subclasses__())


@pytest.mark.parametrize("positions", ALL, ids=lambda p: type(p).__name__)
def test_a_network_takes_any_size_and_aspect_ratio(positions):
    torch.manual_seed(0)
    net = DiT((8, 12), 3, 2, 16, 1, 2, positions=positions)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    for size in ((8, 12), (12, 8), (2, 2), (4, 20)):
        x = torch.randn(1, 3, *size)
        assert net(x, torch.zeros(1), Conditioning()).shape == x.shape
    with pytest.raises(ValueError, match="side 2 do not cut x_t of 8 x 7 evenly"):
        net(torch.randn(1, 3, 8, 7), torch.zeros(1), Conditioning())
    assert ("pos_embed" in net.state_dict()) == ("pos_embed" in dict(net.named_parameters())) == positions.trained
    if positions.trained:
        net(x, torch.zeros(1), Conditioning()).square().sum().backward()
        assert net.pos_embed.grad.any()


@pytest.mark.parametrize("positions", ALL, ids=lambda p: type(p).__name__)
def test_resizing_to_the_own_grid_changes_nothing(positions):
    torch.manual_seed(0)
    table = positions.table(16, 4, 6)
    torch.testing.assert_close(positions.resized(table, (4, 6), (4, 6)), table)


def test_sincos_on_a_double_grid_has_the_old_places_at_every_second_token():
    positions, table = SinCos(), SinCos().table(16, 4, 6)
    torch.testing.assert_close(table, grid_sinusoids(16, 4, 6))
    double = positions.resized(table, (4, 6), (8, 12)).reshape(8, 12, 16)
    torch.testing.assert_close(double[::2, ::2], table.reshape(4, 6, 16))


def test_sincos_with_a_base_size_counts_places_as_the_smaller_grid():
    """PixArt-alpha's scaling: what the weights of a 4 x 4 grid know of their places holds on 8 x 8."""
    table = SinCos(base_size=4).table(16, 8, 8).reshape(8, 8, 16)
    torch.testing.assert_close(table[::2, ::2].reshape(16, 16), SinCos().table(16, 4, 4))
    assert not torch.allclose(table.reshape(64, 16), SinCos().table(16, 8, 8))
    with pytest.raises(ValueError, match="base_size=0"):
        SinCos(base_size=0)


def test_fractional_places_run_from_edge_to_edge_whatever_the_grid():
    """The middle of an odd grid is the middle of any odd grid, and mirroring an axis mirrors it."""
    positions = Fractional()
    small, large = positions.table(16, 3, 3).reshape(3, 3, 16), positions.table(16, 9, 3).reshape(9, 3, 16)
    torch.testing.assert_close(small[1], large[4])
    torch.testing.assert_close(small[0], large[1])
    rows = slice(8, 16)  # the second half of the channels
    assert torch.equal(small[0, 0, rows], small[0, 2, rows])
    assert not torch.allclose(small[0, 0, rows], small[2, 0, rows])
    lowest = positions.table(4, 8, 8)[:, 0].reshape(8, 8)[0]  # half a wave of sine: symmetric about the middle
    torch.testing.assert_close(lowest, lowest.flip(0))
    with pytest.raises(ValueError, match=r"finest=0\.5"):
        Fractional(0.5)


def test_learned_places_are_resized_smoothly():
    ramp = torch.arange(4.0)[:, None].expand(4, 4).reshape(16, 1)  # grows by one a row
    double = Learned().resized(ramp, (4, 4), (8, 8)).reshape(8, 8)
    torch.testing.assert_close(double, double[:, :1].expand(8, 8))
    torch.testing.assert_close(double[2:6, 0].diff(), torch.full((3,), 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(double.mean(), ramp.mean())
