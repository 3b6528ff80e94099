"""What every conditioner owes, and labels in particular."""

import pytest
import torch

import ldm.conditioners
from ldm.conditioners import Conditioner, LabelConditioner, Unconditional
from ldm.errors import UserError

FACTORIES = {LabelConditioner: lambda: LabelConditioner(10, 8), Unconditional: Unconditional}


def batch():
    return {"labels": torch.tensor([3, 9, 0, 3])}


def test_every_conditioner_is_tested_here():
    leaves = {cls for cls in Conditioner.__subclasses__() if cls.__module__.startswith("ldm.")}
    assert leaves == set(FACTORIES)
    assert {cls.__name__ for cls in leaves} < set(ldm.conditioners.__all__)


@pytest.mark.parametrize("leaf", FACTORIES)
def test_every_row_dropped_is_what_no_batch_at_all_gives(leaf):
    """`uncond` is the same call with every row dropped."""
    torch.manual_seed(0)
    conditioner, dropped = FACTORIES[leaf](), torch.ones(4, dtype=torch.bool)
    uncond = conditioner({}, drop=dropped)
    for name, value in vars(conditioner(batch(), drop=dropped)).items():
        other = getattr(uncond, name)
        assert (value is None and other is None) or torch.equal(value, other)


@pytest.mark.parametrize("leaf", FACTORIES)
def test_a_dropped_row_hears_nothing_of_its_own_and_the_others_stay(leaf):
    conditioner, drop = FACTORIES[leaf](), torch.tensor([False, True, False, True])
    vectors = [conditioner(batch(), drop=d).vector for d in (drop, torch.zeros_like(drop), torch.ones_like(drop))]
    if vectors[0] is None:
        assert vectors == [None] * 3
        return
    mixed, kept, null = vectors
    assert torch.equal(mixed, torch.where(drop[:, None], null, kept))


@pytest.mark.parametrize("num_classes", [1, 10, 1000])
def test_the_null_row_stands_at_num_classes(num_classes):
    conditioner = LabelConditioner(num_classes, 8)
    assert conditioner.embedding.weight.shape == (num_classes + 1, 8)
    null = conditioner({}, drop=torch.ones(2, dtype=torch.bool)).vector
    assert torch.equal(null, conditioner.embedding.weight[[num_classes, num_classes]])


def test_a_label_gives_its_own_row():
    conditioner = LabelConditioner(10, 8)
    vector = conditioner(batch(), drop=torch.zeros(4, dtype=torch.bool)).vector
    assert torch.equal(vector, conditioner.embedding.weight[[3, 9, 0, 3]])


def test_dropped_rows_train_the_null_row_alone():
    conditioner = LabelConditioner(10, 8)
    conditioner(batch(), drop=torch.tensor([True, False, True, False])).vector.sum().backward()
    moved = conditioner.embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert moved == [3, 9, 10]


def test_labels_are_wanted_unless_all_are_dropped():
    conditioner = LabelConditioner(10, 8)
    with pytest.raises(UserError, match="no labels and the model is class-conditional"):
        conditioner({}, drop=torch.tensor([True, False]))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="num_classes is 0"):
        LabelConditioner(0, 8)
    for dropout in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
            LabelConditioner(10, 8, dropout)


def test_unconditional_has_nothing_to_train_or_to_ask_for():
    conditioner = Unconditional()
    assert list(conditioner.parameters()) == []
    assert conditioner.num_classes is None
    assert conditioner.dropout == 0
