"""Both ways of attention are one function."""

import pytest
import torch

from ldm.nn.attend import attend, products


@pytest.mark.parametrize("masked", [False, True])
def test_the_products_written_out_are_the_fused_kernel(masked):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 5, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    mask = (torch.arange(7) < torch.tensor([1, 4, 7])[:, None])[:, None, None] if masked else None
    fused = attend(q, k, v, mask)
    assert fused.shape == (3, 5, 16)
    torch.testing.assert_close(products(q, k, v, mask).transpose(1, 2).flatten(2), fused)


def test_in_bfloat16_it_is_that_up_to_rounding_and_a_masked_key_counts_for_nothing():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 6, 8) for _ in range(3))
    mask = (torch.arange(6) < 4).expand(2, 1, 1, 6)
    low = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), attend(q, k, v, mask), rtol=0, atol=0.03)
    k[:, :, 4:], v[:, :, 4:] = 9.0, 9.0
    assert torch.equal(attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask), low)
