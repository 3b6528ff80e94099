"""The random numbers of a training step."""

import pytest
import torch

from ldm.tasks.base import BatchNoise


def whole(seed=0, step=3, batch=12):
    return BatchNoise(seed, step, torch.arange(batch), batch)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_rows_of_all_ranks_are_the_whole(world):
    """The ranks' draws, one after the other, are those of one process, for every draw in turn."""
    ranks = [BatchNoise(0, 3, torch.arange(12).chunk(world)[rank], 12) for rank in range(world)]
    one = whole()
    for draw in (lambda n: n.uniform(), lambda n: n.normal(2, 3), lambda n: n.uniform(), lambda n: n.normal(5)):
        assert torch.equal(torch.cat([draw(rank) for rank in ranks]), draw(one))


def test_rows_may_come_in_any_order():
    order = torch.randperm(12)
    assert torch.equal(BatchNoise(0, 3, order, 12).normal(4), whole().normal(4)[order])


def test_it_is_a_function_of_seed_and_step():
    assert torch.equal(whole(1, 2).normal(4), whole(1, 2).normal(4))
    draws = torch.stack([whole(seed, step).uniform() for seed in (0, 1, 2) for step in (0, 1, 2)])
    assert len(torch.unique(draws, dim=0)) == 9


def test_one_draw_after_another_is_new():
    noise = whole()
    assert not torch.equal(noise.uniform(), noise.uniform())


def test_what_is_drawn_is_uniform_and_normal():
    uniform, normal = whole(batch=20_000).uniform(), whole(batch=20_000).normal(2)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert normal.shape == (20_000, 2)
    assert normal.mean().item() == pytest.approx(0, abs=0.02)
    assert normal.std().item() == pytest.approx(1, abs=0.02)
