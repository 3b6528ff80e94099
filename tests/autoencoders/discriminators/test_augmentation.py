"""What is done to images before a discriminator sees them."""

import pytest
import torch

from ldm.autoencoders.discriminators.augmentation import DiffAugment, holes, recoloured, shifted
from ldm.tasks.base import BatchNoise


def images():
    return torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def draws(step=0):
    return BatchNoise(seed=0, step=step, rows=torch.arange(8), global_batch=8)


def test_it_is_a_function_of_the_step_and_nothing_asked_for_changes_nothing():
    augment = DiffAugment()
    assert torch.equal(augment(images(), draws(1)), augment(images(), draws(1)))
    assert not torch.allclose(augment(images(), draws(1)), augment(images(), draws(2)))
    assert torch.equal(DiffAugment(colour=False, shift=0.0, cutout=0.0)(images(), draws()), images())
    assert torch.equal(DiffAugment(share=0.0)(images(), draws()), images())


def test_gradients_reach_the_images():
    given = images().requires_grad_()
    DiffAugment()(given, draws()).square().sum().backward()
    assert given.grad.any()


def test_colours_at_the_middle_of_their_ranges_stay():
    half = torch.full((8, 1, 1, 1), 0.5)
    torch.testing.assert_close(recoloured(images(), half, half, half), images())
    grey = recoloured(images(), half, 0 * half, half)
    torch.testing.assert_close(grey, images().mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_a_shift_moves_whole_pixels_and_none_is_in_the_middle():
    middle, first = torch.full((8,), 0.5), torch.zeros(8)
    assert torch.equal(shifted(images(), middle, middle, 0.125), images())
    moved = shifted(images(), first, middle, 0.125)  # two rows down
    assert torch.equal(moved[:, :, 2:], images()[:, :, :-2])
    assert (moved[:, :, :2] == 0).all()


def test_a_hole_is_as_large_as_asked_and_cut_off_at_the_edges():
    middle, first = torch.full((1,), 0.5), torch.zeros(1)
    assert holes(images()[:1], middle, middle, 0.5).sum() == 7 * 11
    assert holes(images()[:1], first, first, 0.5).sum() == 4 * 6
    assert holes(images()[:1], middle, middle, 0.0).sum() == 0


def test_what_cannot_be_is_refused():
    for arguments in ({"shift": 1.0}, {"cutout": -0.1}, {"share": 2.0}):
        with pytest.raises(ValueError, match="parts of a whole"):
            DiffAugment(**arguments)
