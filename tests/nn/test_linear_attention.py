"""Attention over feature maps, against sums written out."""

import pytest
import torch
from torch import nn

from ldm.nn.linear_attention import LinearAttention, MapAttention


@pytest.mark.parametrize("kind", [LinearAttention, MapAttention])
def test_it_starts_as_the_identity(kind):
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(kind(6, 2, 5)(x), x)


def test_each_place_reads_a_mean_of_values_weighted_by_features():
    """out(n) = sum_d softmax_d(q(n)) / sqrt(D) * sum_m softmax_m(k_d) v(m), head by head."""
    torch.manual_seed(0)
    layer = LinearAttention(6, num_heads=2, head_width=5).double()
    nn.init.normal_(layer.out_norm.weight)
    x = torch.randn(1, 6, 2, 3).double()
    q, k, v = (layer.qkv(layer.norm(x))[0].reshape(3, 2, 5, 6)).unbind(0)  # (heads, features, places) each
    read = torch.zeros(2, 5, 6).double()
    for h in range(2):
        for n in range(6):
            features = q[h, :, n].exp() / q[h, :, n].exp().sum() / 5**0.5
            for d in range(5):
                places = k[h, d].exp() / k[h, d].exp().sum()
                read[h, :, n] += features[d] * (v[h] * places).sum(1)
    expected = x + layer.out_norm(layer.out(read.reshape(1, 10, 2, 3)))
    torch.testing.assert_close(layer(x), expected)


def test_full_attention_over_a_map_treats_places_alike():
    layer, x = MapAttention(6, 2, 5), torch.randn(2, 6, 3, 4)
    nn.init.normal_(layer.attention.out.weight)
    torch.testing.assert_close(layer(x.flip(2, 3)).flip(2, 3), layer(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(layer(x), x)
