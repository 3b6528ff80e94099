"""Attention to a context and the blocks around it, against their definitions."""

import pytest
import torch
from torch import nn

from ldm.nn.cross_attention import CrossAttention
from ldm.nn.geglu import GEGLU
from ldm.nn.spatial_transformer import SpatialTransformer, TransformerBlock


def written_out(attention, x, context, mask):
    """softmax(q k^T / sqrt(d)) v, head by head; the tokens that do not count are left out."""
    rows = []
    for i in range(len(x)):
        source = context[i][mask[i]]
        q, k, v = attention.q(x[i]), attention.k(source), attention.v(source)
        width = q.shape[1] // attention.num_heads
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * width, (h + 1) * width)
            scores = (q[:, part] @ k[:, part].T / width**0.5).exp()
            heads.append(scores / scores.sum(1, keepdim=True) @ v[:, part])
        rows.append(attention.out(torch.cat(heads, dim=1)))
    return torch.stack(rows)


def test_it_equals_a_softmax_written_out():
    torch.manual_seed(0)
    attention = CrossAttention(12, num_heads=2, head_width=4, context_width=5).double()
    x, context = torch.randn(3, 7, 12).double(), torch.randn(3, 4, 5).double()
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False, False, False, True]])
    out = attention(x, context, mask[:, None, None])
    torch.testing.assert_close(out, written_out(attention, x, context, mask), rtol=1e-12, atol=1e-12)
    everything = torch.ones_like(mask)
    torch.testing.assert_close(attention(x, context), written_out(attention, x, context, everything))


def test_without_a_context_it_attends_to_itself():
    attention, x = CrossAttention(6, 2, 3), torch.randn(2, 5, 6)
    assert torch.equal(attention(x), attention(x, x))
    assert attention.q.bias is attention.k.bias is attention.v.bias is None


def test_the_gate_of_the_perceptron_is_the_second_half():
    mlp, x = GEGLU(3), torch.randn(4, 3)
    value, gate = (x @ mlp.enter.weight.T + mlp.enter.bias).split(12, dim=1)
    product = value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    torch.testing.assert_close(mlp(x), product @ mlp.leave.weight.T + mlp.leave.bias)


@pytest.mark.parametrize("linear", [False, True])
def test_a_spatial_transformer_starts_as_the_identity_and_treats_places_alike(linear):
    """Permuting the places permutes the result."""
    torch.manual_seed(0)
    layer = SpatialTransformer(8, 2, 4, depth=2, context_width=5, linear_projections=linear)
    x, context = torch.randn(2, 8, 2, 3), torch.randn(2, 4, 5)
    assert torch.equal(layer(x, context), x)
    nn.init.normal_(layer.leave.weight)
    out = layer(x, context)
    assert not torch.allclose(out, x)
    turned = layer(x.flip(2, 3), context).flip(2, 3)
    torch.testing.assert_close(turned, out, rtol=1e-4, atol=1e-5)


def test_linear_and_convolutional_projections_are_the_same_function():
    one, other = (SpatialTransformer(8, 2, 4, 1, 5, linear) for linear in (True, False))
    nn.init.normal_(one.leave.weight)
    other.load_state_dict({k: v.reshape(other.state_dict()[k].shape) for k, v in one.state_dict().items()})
    x, context = torch.randn(2, 8, 2, 3), torch.randn(2, 4, 5)
    torch.testing.assert_close(other(x, context), one(x, context), rtol=1e-4, atol=1e-5)


def test_a_block_without_a_context_has_no_layers_for_one():
    names = [name for name, _ in TransformerBlock(8, 2, 4, None).named_parameters()]
    assert not [name for name in names if "cross" in name or "norm2" in name]
