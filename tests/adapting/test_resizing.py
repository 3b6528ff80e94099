"""Weights for other patches and channels: what they compute is what the old ones computed."""

import pytest
import torch
from einops import rearrange
from torch.nn.functional import conv2d

from ldm.adapting.labels import label_rows, places
from ldm.adapting.resizing import (
    embedding_for_patches,
    inputs_for_channels,
    outputs_for_channels,
    patch_head,
    resize_matrix,
)

RANDOM = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(shape, generator=RANDOM, dtype=torch.float64)


def resized(patches, after):
    """(B, C, p, p) -> (B, C, after, after)."""
    matrix = resize_matrix(patches.shape[-1], after)
    return (patches.flatten(2) @ matrix.T).unflatten(2, (after, after))


@pytest.mark.parametrize(("before", "after"), [(2, 4), (2, 3), (4, 2), (8, 4), (3, 3)])
def test_resizing_keeps_a_constant(before, after):
    matrix = resize_matrix(before, after)
    assert matrix.shape == (after**2, before**2)
    torch.testing.assert_close(matrix.sum(1), torch.ones(after**2).double())


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (2, 3), (3, 4)])
def test_larger_patches_hear_of_a_resized_patch_what_was_heard_of_it(before, after):
    weight, patches = drawn(5, 3, before, before), drawn(7, 3, before, before)
    larger = embedding_for_patches(weight, after)
    torch.testing.assert_close(conv2d(resized(patches, after), larger), conv2d(patches, weight))


def test_larger_patches_hear_the_detail_that_is_new_as_a_new_network_does():
    weight, fresh, patches = drawn(5, 3, 2, 2), drawn(5, 3, 4, 4), drawn(7, 3, 2, 2)
    larger = embedding_for_patches(weight, 4, fresh)
    torch.testing.assert_close(conv2d(resized(patches, 4), larger), conv2d(patches, weight))
    detail = drawn(7, 3, 4, 4)
    matrix = resize_matrix(2, 4)
    detail = detail - (detail.flatten(2) @ (matrix @ torch.linalg.pinv(matrix)).T).unflatten(2, (4, 4))
    torch.testing.assert_close(conv2d(detail, larger), conv2d(detail, fresh))


@pytest.mark.parametrize(("before", "after"), [(4, 2), (8, 4), (3, 2)])
def test_smaller_patches_hear_the_nearest_in_the_least_squares(before, after):
    """Among all weights for resized patches, over white patches: no small change brings it nearer."""
    weight = drawn(1, 1, before, before)
    smaller = embedding_for_patches(weight, after)
    matrix = resize_matrix(before, after)

    def distance(candidate):
        return (candidate.flatten() @ matrix - weight.flatten()).square().sum()

    best = distance(smaller)
    assert all(distance(smaller + 0.01 * drawn(*smaller.shape)) > best for _ in range(20))
    torch.testing.assert_close(smaller.sum(), weight.sum())  # of a constant patch the same is heard


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (2, 3)])
def test_a_head_gives_the_resized_patch(before, after):
    rows, h = drawn(before**2 * 3, 6), drawn(6)
    head = patch_head(rows, drawn(after**2 * 3, 6), (before, after), ((3, 0), (3, 0)))
    old, new = (rearrange(r @ h, "(p q c) -> 1 c p q", c=3, p=p) for r, p in ((rows, before), (head, after)))
    torch.testing.assert_close(new, resized(old, after))


def test_the_same_patches_and_channels_leave_the_weights_bit_for_bit():
    weight, rows = drawn(5, 4, 2, 2).float(), drawn(2 * 2 * 4, 5).float()
    assert torch.equal(inputs_for_channels(embedding_for_patches(weight, 2), (3, 0, 1), (3, 0, 1)), weight)
    assert torch.equal(patch_head(rows, torch.zeros_like(rows), (2, 2), ((4, 0), (4, 0))), rows)


def test_new_input_channels_are_not_heard_and_the_old_ones_as_before():
    """x_t of 2 channels and 1 beside it -> 3, an estimate of 3, and 2 beside it."""
    weight, x, beside, noise = drawn(4, 3, 3, 3), drawn(2, 2, 5, 5), drawn(2, 1, 5, 5), drawn(2, 5, 5, 5)
    wider = inputs_for_channels(weight, (2, 0, 1), (3, 3, 2))
    new = torch.cat([x, noise[:, :1], noise[:, 1:4], beside, noise[:, 4:]], dim=1)
    torch.testing.assert_close(conv2d(new, wider), conv2d(torch.cat([x, beside], dim=1), weight))
    assert torch.equal(inputs_for_channels(weight, (2, 0, 1), (1, 0, 0)), weight[:, :1])


def test_new_output_channels_are_fresh_in_each_part():
    """A prediction of 2 channels and as many variances -> 3 and 3."""
    rows, fresh = drawn(4, 5), drawn(6, 5)
    wider = outputs_for_channels(rows, fresh, (2, 2), (3, 3))
    assert torch.equal(wider, torch.stack([rows[0], rows[1], fresh[2], rows[2], rows[3], fresh[5]]))
    assert torch.equal(outputs_for_channels(rows, fresh[:1], (2, 2), (1, 0)), rows[:1])


def test_channels_that_trade_places_with_patches_are_told_apart():
    """16 rows are 2 x 2 patches of 4 channels or 4 x 4 of one: the same shape, another thing."""
    rows = drawn(16, 3)
    head = patch_head(rows, drawn(16, 3), (2, 4), ((4, 0), (1, 0)))
    torch.testing.assert_close(head, patch_head(rows[::4], drawn(16, 3), (2, 4), ((1, 0), (1, 0))))
    assert not torch.equal(head, rows)


def test_classes_are_found_by_name_and_else_by_number():
    assert places(["cat", "dog", "cow"], ["cow", "hen", "cat"], 3, 3) == [2, None, 0]
    assert places(["cat", "dog"], ["dog"], 2, 3) == [1, None, None]  # more rows than names
    for unnamed in ((None, ["dog"]), (["dog"], None), (None, None)):
        assert places(*unnamed, 2, 4) == [0, 1, None, None]
        assert places(*unnamed, 4, 2) == [0, 1]


def test_a_new_class_is_the_mean_of_the_known_and_no_class_stays_last():
    table = drawn(4, 6)
    rows = label_rows(table, [2, None, 0])
    assert torch.equal(rows[[0, 2, 3]], table[[2, 0, 3]])
    assert torch.equal(rows[1], table[:3].mean(0))
    assert torch.equal(label_rows(table, [0, 1, 2]), table)
