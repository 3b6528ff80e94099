"""Embeddings of the noise level and of a token's place."""

import math

import pytest
import torch

from ldm.nn.embeddings import NoiseEmbedding, grid_sinusoids, sinusoids


def test_sinusoids_are_cosines_then_sines_of_geometric_frequencies():
    values = torch.tensor([0.0, 1.0, 0.5, 999.0])
    embedded = sinusoids(values, 8)
    for row, value in zip(embedded, values.tolist(), strict=True):
        angles = [value * 10_000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_sinusoids_are_float32_of_integers_and_halves():
    whole = sinusoids(torch.tensor([3, 700]), 16)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, sinusoids(torch.tensor([3.0, 700.0], dtype=torch.float64), 16))


def test_the_first_half_of_a_position_encodes_the_column():
    rows, columns, width = 3, 5, 16
    embedded = grid_sinusoids(width, rows, columns).view(rows, columns, width)
    first, second = embedded.chunk(2, dim=2)
    for row in range(rows):
        assert torch.equal(first[row], first[0])  # does not change from row to row
    for column in range(columns):
        assert torch.equal(second[:, column], second[:, 0])
    assert len(torch.unique(first[0], dim=0)) == columns
    assert len(torch.unique(second[:, 0], dim=0)) == rows
    frequencies = 10_000.0 ** -(torch.arange(4).double() / 4)
    angles = torch.arange(columns).double()[:, None] * frequencies
    torch.testing.assert_close(first[0].double(), torch.cat([angles.sin(), angles.cos()], 1), rtol=0, atol=1e-7)


def test_each_place_has_its_own_embedding():
    assert len(torch.unique(grid_sinusoids(64, 16, 16), dim=0)) == 256


def test_transposing_the_grid_swaps_the_halves():
    wide, high = grid_sinusoids(8, 2, 6).view(2, 6, 8), grid_sinusoids(8, 6, 2).view(6, 2, 8)
    assert torch.equal(wide, torch.cat([high[..., 4:], high[..., :4]], -1).transpose(0, 1))


def test_a_width_that_cannot_be_quartered_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        grid_sinusoids(10, 2, 2)


def test_the_noise_embedding_tells_levels_apart_and_starts_small():
    torch.manual_seed(0)
    embedding = NoiseEmbedding(32)
    out = embedding(torch.tensor([0.0, 1.0, 500.0, 999.0]))
    assert out.shape == (4, 32)
    assert len(torch.unique(out, dim=0)) == 4
    for linear in (embedding.enter, embedding.leave):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not linear.bias.any()


def test_the_noise_embedding_speaks_the_precision_of_its_weights():
    assert NoiseEmbedding(8).bfloat16()(torch.tensor([1.0])).dtype == torch.bfloat16
