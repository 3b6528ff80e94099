"""Self-attention against its definition."""

import pytest
import torch

from ldm.nn.attention import SelfAttention


def naive(attention, x):
    """softmax(q k^T / sqrt(d)) v, head by head, written out."""
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    depth = x.shape[-1] // attention.num_heads
    heads = []
    for h in range(attention.num_heads):
        part = slice(h * depth, (h + 1) * depth)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / depth**0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ v[..., part])
    return attention.out(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("num_heads", [1, 2, 6])
def test_it_equals_a_softmax_written_out(num_heads):
    torch.manual_seed(0)
    attention = SelfAttention(12, num_heads).double()
    x = torch.randn(3, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(attention(x), naive(attention, x), rtol=1e-12, atol=1e-12)


def test_permuting_the_tokens_permutes_the_result():
    torch.manual_seed(0)
    attention, x, order = SelfAttention(8, 2).double(), torch.randn(2, 5, 8).double(), torch.randperm(5)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-12, atol=1e-12)


def test_one_token_attends_to_itself():
    attention, x = SelfAttention(8, 2), torch.randn(4, 1, 8)
    torch.testing.assert_close(attention(x), attention.out(attention.qkv(x)[..., 16:]))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="A width of 10 does not split into 4 heads"):
        SelfAttention(10, 4)


def test_masked_tokens_are_not_attended_to():
    torch.manual_seed(0)
    attention, x = SelfAttention(8, 2).double(), torch.randn(2, 5, 8).double()
    keys = torch.tensor([True, True, True, False, False]).expand(2, 1, 1, 5)
    torch.testing.assert_close(attention(x, keys=keys)[:, :3], attention(x[:, :3]))


def test_qk_norm_gives_queries_and_keys_one_length_and_keeps_their_precision():
    attention = SelfAttention(8, 2, qk_norm=True)
    for one in attention.heads(torch.randn(2, 5, 8))[:2]:
        torch.testing.assert_close(one.square().mean(-1), torch.ones(2, 2, 5), rtol=1e-3, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert {one.dtype for one in attention.heads(torch.randn(2, 5, 8))} == {torch.bfloat16}
