"""Attention of one sequence to another against its definition."""

import pytest
import torch

from ldm.nn.context_attention import ContextAttention


@pytest.mark.parametrize("qk_norm", [False, True])
def test_it_equals_a_softmax_over_the_tokens_that_count(qk_norm):
    """Written out for one row, whose third token is masked."""
    torch.manual_seed(0)
    attention = ContextAttention(12, 2, qk_norm).double()
    x, context = torch.randn(5, 12).double(), torch.randn(3, 12).double()
    q = attention.q(x)
    k, v = attention.kv(context)[:2].chunk(2, dim=1)
    heads = []
    for part in (slice(0, 6), slice(6, 12)):
        asked, offered = q[:, part], k[:, part]
        if qk_norm:
            asked, offered = (one / one.square().mean(1, keepdim=True).sqrt() for one in (asked, offered))
        heads.append((asked @ offered.T / 6**0.5).softmax(1) @ v[:, part])
    mask = torch.tensor([True, True, False])[None, None, None]
    found = attention(x[None], context[None], mask)[0]
    torch.testing.assert_close(found, attention.out(torch.cat(heads, 1)), rtol=1e-4, atol=1e-5)


def test_one_token_is_heard_by_all_alike():
    attention, context = ContextAttention(8, 2), torch.randn(4, 1, 8)
    expected = attention.out(attention.kv(context)[..., 8:]).expand(4, 3, 8)
    torch.testing.assert_close(attention(torch.randn(4, 3, 8), context), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="A width of 10 does not split into 4 heads"):
        ContextAttention(10, 4)
