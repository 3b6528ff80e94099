"""Rotary positions in two dimensions."""

import pytest
import torch

from ldm.nn.rotary import for_grid, rotary_table, rotate, with_still_tokens


def test_logits_depend_on_how_far_apart_two_places_are_and_on_nothing_else():
    """One query and one key put at every place of a 5 x 7 grid."""
    table = rotary_table(8, 5, 7).double()
    q, k = (torch.randn(8).double().expand(1, 1, 35, 8) for _ in range(2))
    logits = (rotate(q, table) @ rotate(k, table).mT).reshape(5, 7, 5, 7)
    for rows, columns in ((1, 0), (0, 1), (2, 3)):
        moved = logits[rows:, columns:, rows:, columns:]
        torch.testing.assert_close(
            moved, logits[: 5 - rows, : 7 - columns, : 5 - rows, : 7 - columns], atol=1e-5, rtol=0
        )
    apart = {round(logits[2, 3, row, column].item(), 4) for row in range(5) for column in range(7)}
    assert len(apart) == 35  # and every distance is told from every other


def test_turning_keeps_lengths_and_the_first_place_as_it_is():
    x = torch.randn(2, 3, 12, 8)
    turned = rotate(x, rotary_table(8, 3, 4))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert rotate(x.bfloat16(), rotary_table(8, 3, 4)).dtype == torch.bfloat16


def test_tokens_without_a_place_are_not_turned():
    x = torch.randn(1, 2, 14, 8)
    table = rotary_table(8, 3, 4)
    turned = rotate(x, with_still_tokens(table, 2))
    assert torch.equal(turned[:, :, :2], x[:, :, :2])
    assert torch.equal(turned[:, :, 2:], rotate(x[:, :, 2:], table))


def test_another_grid_counts_the_same_steps():
    table = rotary_table(8, 3, 4)
    assert for_grid(table, (3, 4), (3, 4)) is table
    larger = for_grid(table, (3, 4), (6, 5)).reshape(2, 6, 5, 8)
    torch.testing.assert_close(larger[:, :3, :4].reshape(2, 12, 8), table)


def test_odd_pairs_are_refused():
    with pytest.raises(ValueError, match="heads of width 6 do not split"):
        rotary_table(6, 2, 2)
