"""Several labels at once: every attribute has its own vectors and its own null."""

import pytest
import torch

from ldm.conditioners import Attributes, Conditioner
from ldm.errors import UserError
from ldm.tasks.base import BatchNoise

NONE = torch.zeros(4, dtype=torch.bool)
VALUES = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])


def vector(embedder, values, drop=NONE, draws=None):
    return embedder({embedder.keys[0]: values}, drop, draws).vector


def test_the_vector_is_the_sum_of_one_row_of_each_table():
    embedder = Attributes([3, 2], 8)
    first, second = embedder.embedding.weight[:4], embedder.embedding.weight[4:]
    assert torch.equal(vector(embedder, VALUES), first[VALUES[:, 0]] + second[VALUES[:, 1]])


def test_minus_one_and_a_dropped_row_are_the_nulls_of_the_attributes():
    embedder = Attributes([3, 2], 8)
    first, second = embedder.embedding.weight[:4], embedder.embedding.weight[4:]
    partly = torch.tensor([[-1, 1], [2, -1], [-1, -1], [0, 0]])
    drop = torch.tensor([False, False, False, True])
    expected = torch.stack([first[3] + second[1], first[2] + second[2], first[3] + second[2], first[3] + second[2]])
    assert torch.equal(vector(embedder, partly, drop), expected)


def test_names_read_fields_of_their_own():
    torch.manual_seed(0)
    listed = Attributes([3, 2], 8)
    named = Attributes({"colour": 3, "large": 2}, 8)
    named.load_state_dict(listed.state_dict())
    batch = {"colour": VALUES[:, 0], "large": VALUES[:, 1]}
    assert named.keys == ("colour", "large")
    assert torch.equal(named(batch, NONE).vector, vector(listed, VALUES))


def test_attributes_are_dropped_each_by_itself_as_often_as_asked():
    embedder = Attributes([1, 1], 1, dropout=0.0, dropout_each=0.3)
    with torch.no_grad():  # the vector tells which of the two rows were the nulls
        embedder.embedding.weight.copy_(torch.tensor([[0.0], [1.0], [0.0], [10.0]]))
    count = 4000
    noise = BatchNoise(0, 0, torch.arange(count), count)
    values = torch.zeros(count, 2, dtype=torch.long)
    found = vector(embedder, values, torch.zeros(count, dtype=torch.bool), noise)
    shares = [(found == value).float().mean().item() for value in (0, 1, 10, 11)]
    assert shares == pytest.approx([0.49, 0.21, 0.21, 0.09], abs=0.03)
    assert not vector(embedder, values, torch.zeros(count, dtype=torch.bool)).any()


def test_a_value_that_no_table_has_is_refused_and_not_taken_from_another_attribute():
    with pytest.raises(UserError, match=r"values 0 to 2 of 'attributes', and finds 3"):
        vector(Attributes([3, 2], 8), VALUES + torch.tensor([1, 0]))
    with pytest.raises(UserError, match="knows 3 attributes, and the samples have 2"):
        vector(Attributes([3, 2, 2], 8), VALUES)
    with pytest.raises(UserError, match="whole numbers in attributes, and finds others"):
        vector(Attributes([3, 2], 8), VALUES + 0.5)
    with pytest.raises(UserError, match="reads numbers in 'attributes'"):
        vector(Attributes([3, 2], 8), ["red", "blue", "red", "red"])


def test_what_a_user_writes_is_read_and_checked():
    listed, named = Attributes([3, 2], 8), Attributes({"colour": 3}, 8)
    assert listed.read("attributes", "2, 1") == [2, 1]
    assert named.read("colour", "2") == 2
    listed.check_asked({"attributes": [[2, 1], [-1, 0]]})
    named.check_asked({"colour": [2]})
    with pytest.raises(UserError, match="colour: asked for without large: name all"):
        Attributes({"colour": 3, "large": 2}, 8).check_asked({"colour": [2]})
    for embedder, wish in (
        (listed, {"attributes": [[3, 0]]}),
        (listed, {"attributes": [[1]]}),
        (named, {"colour": [3]}),
    ):
        with pytest.raises(UserError, match="may be 0 to 2"):
            embedder.check_asked(wish)


def test_a_sample_without_one_of_the_fields_is_named():
    batch = {"colour": [1, None], "keys": ["a", "b"], "shards": ["s.tar", "s.tar"]}
    with pytest.raises(UserError, match=r"Attributes reads 'colour' of sample 'b' in shard s.tar"):
        Conditioner([Attributes({"colour": 3}, 8)])(batch, torch.tensor([True, False]))


def test_what_cannot_be_built_is_refused():
    for wrong in ([], [2, 0], {}):
        with pytest.raises(ValueError, match="at least one attribute"):
            Attributes(wrong, 8)
    with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
        Attributes([2], 8, dropout_each=1.0)
