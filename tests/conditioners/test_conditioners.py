"""What every embedder owes, what a set of them is, and labels in particular."""

from dataclasses import fields

import pytest
import torch
from test_frozen_text import make as make_frozen_text
from test_frozen_text import weights  # noqa: F401  (a fixture)

import ldm.conditioners
from ldm.conditioners import (
    Attributes,
    Conditioner,
    Embedder,
    ImageConcat,
    Label,
    LowResolution,
    Number,
    SemanticMap,
    SizeAndCrop,
    SmallText,
)
from ldm.errors import UserError
from ldm.networks import Conditioning, DiT
from ldm.networks.blocks import AdaLNZeroCross
from ldm.tasks.base import BatchNoise

ROWS = 4
FACTORIES = {
    "Attributes": lambda _: Attributes([3, 2], 8),
    "FrozenText": make_frozen_text,
    "ImageConcat": lambda _: ImageConcat(grid=4, factor=2, width=4),
    "Label": lambda _: Label(10, 8),
    "LowResolution": lambda _: LowResolution(size=8, factor=2, grid=4, width=8),
    "Number": lambda _: Number("score", 8),
    "SemanticMap": lambda _: SemanticMap(5, grid=4, factor=2, width=4),
    "SizeAndCrop": lambda _: SizeAndCrop(8, [64, 64]),
    "SmallText": lambda _: SmallText(8, depth=1, num_heads=2, context_length=8, vector_width=8, table_width=4),
}
ELSEWHERE = {"CLIPImage"}  # needs a model file; test_clip_image.py


def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "labels": torch.tensor([3, 9, 0, 3]),
        "captions": ["a red circle", "two", "three blue squares", "one"],
        "attributes": torch.tensor([[2, 0], [1, 1], [0, -1], [2, 1]]),
        "original_size": torch.tensor([[64, 80], [80, 64], [64, 64], [48, 48]]),
        "crop": torch.tensor([[0, 8], [8, 0], [0, 0], [2, 3]]),
        "score": torch.tensor([0.5, 1.5, 2.5, 3.5]),
        "maps": torch.randint(5, (ROWS, 1, 8, 8), generator=generator, dtype=torch.uint8),
        "images": torch.rand(ROWS, 3, 8, 8, generator=generator) * 2 - 1,
    }


def readable(name):
    """The batch as an embedder wants it: a condition image has three channels."""
    whole = batch()
    return whole | {"maps": whole["maps"].expand(-1, 3, -1, -1)} if name == "ImageConcat" else whole


def shaken(embedder):
    """With weights that say something, where they start at zero too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in embedder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return embedder


def same(one, other, rows=slice(None)):
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(Conditioning)]
    return all((a is None and b is None) or torch.equal(a[rows], b[rows]) for a, b in pairs)


def test_every_embedder_is_tested_here():
    leaves = {cls.__name__ for cls in Embedder.__subclasses__() if cls.__module__.startswith("ldm.")}
    assert leaves == FACTORIES.keys() | ELSEWHERE
    assert leaves < set(ldm.conditioners.__all__)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_dropped_row_hears_nothing_of_its_own_and_the_others_stay(name, weights):  # noqa: F811
    embedder, drop = shaken(FACTORIES[name](weights)), torch.tensor([False, True, False, True])
    told = readable(name)
    mixed, kept, null = (embedder(told, d) for d in (drop, torch.zeros_like(drop), torch.ones_like(drop)))
    assert same(mixed, null, drop)
    assert same(mixed, kept, ~drop)
    assert not same(kept, null, drop)


@pytest.mark.parametrize("name", FACTORIES)
def test_every_row_dropped_is_what_no_batch_at_all_gives(name, weights):  # noqa: F811
    """The unconditional model is the same call with every row dropped."""
    conditioner, dropped = Conditioner([shaken(FACTORIES[name](weights))]), torch.ones(ROWS, dtype=torch.bool)
    assert same(conditioner({}, dropped), conditioner(readable(name), dropped))


@pytest.mark.parametrize("name", FACTORIES)
def test_each_embedders_dropout_is_its_own(name, weights):  # noqa: F811
    """Measured over many rows: the share that the conditioner drops is the one it was given, four standard errors."""
    other = Label(10, 8, dropout=0.0)
    embedder = FACTORIES[name](weights)
    embedder.dropout = 0.3
    count = 4000
    drops = Conditioner([other, embedder]).drops(BatchNoise(0, 0, torch.arange(count), count))
    assert drops.shape == (count, 2)
    assert not drops[:, 0].any()
    assert drops[:, 1].float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / count) ** 0.5)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_batch_that_lacks_what_is_read_names_embedder_entry_sample_and_shard(name, weights):  # noqa: F811
    embedder = FACTORIES[name](weights)
    key = embedder.keys[0]
    told = {k: v for k, v in readable(name).items() if k not in (key, embedder.stand_ins.get(key))}
    told |= {"keys": ["a", "b", "c", "d"], "shards": ["one.tar", "one.tar", "two.tar", "two.tar"]}
    drop = torch.zeros(ROWS, dtype=torch.bool)
    with pytest.raises(UserError, match=rf"{name} reads '{key}' of sample 'a' in shard one.tar"):
        Conditioner([embedder])(told, drop)
    with pytest.raises(UserError, match=rf"{name} reads '{key}' of sample 'c' in shard two.tar"):
        Conditioner([embedder])(told | {key: [1, 2, None, 3]}, drop)


def three():
    torch.manual_seed(0)
    text = SmallText(12, depth=1, num_heads=2, context_length=8, vector_width=16, table_width=4)
    return Conditioner([Label(10, 16), text, SizeAndCrop(16, [64, 64])])


def test_class_text_and_size_in_one_model():
    """Each is heard, and the vectors are summed."""
    conditioner, keep = shaken(three()), torch.zeros(ROWS, dtype=torch.bool)
    net = shaken(DiT(4, 2, 2, 16, 1, 2, block=AdaLNZeroCross(12)))
    x_t, level = torch.randn(ROWS, 2, 4, 4), torch.full((ROWS,), 500.0)
    told = batch()
    cond = conditioner(told, keep)
    net.check((2, 4, 4), cond)
    parts = [embedder(told, keep).vector for embedder in conditioner]
    torch.testing.assert_close(cond.vector, sum(parts))
    out = net(x_t, level, cond)
    for key, value in (("labels", told["labels"]), ("captions", ["green"] * 4), ("crop", told["crop"] + 9)):
        changed = value if key != "labels" else (value + 1) % 10
        assert not torch.allclose(net(x_t, level, conditioner(told | {key: changed}, keep)), out, atol=1e-5)


def test_all_dropped_is_the_unconditional_model_whatever_was_asked():
    conditioner, drop = shaken(three()), torch.ones(ROWS, dtype=torch.bool)
    net = shaken(DiT(4, 2, 2, 16, 1, 2, block=AdaLNZeroCross(12)))
    x_t, level = torch.randn(ROWS, 2, 4, 4), torch.full((ROWS,), 500.0)
    uncond = net(x_t, level, conditioner({}, drop))
    for told in (batch(), {k: v[::-1] if isinstance(v, list) else v.flip(0) for k, v in batch().items()}):
        assert torch.equal(net(x_t, level, conditioner(told, drop)), uncond)
        assert torch.equal(net(x_t, level, conditioner(told, drop[:, None].expand(-1, 3))), uncond)


def test_all_are_dropped_together_and_each_by_itself():
    count = 20_000
    conditioner = Conditioner([Label(10, 8, dropout=0.2), Number("score", 8, dropout=0.5)], dropout=0.1)
    drops = conditioner.drops(BatchNoise(0, 0, torch.arange(count), count)).float()
    shares = drops.mean(0).tolist()
    assert shares == pytest.approx([0.1 + 0.9 * 0.2, 0.1 + 0.9 * 0.5], abs=0.015)
    assert drops.prod(1).mean().item() == pytest.approx(0.1 + 0.9 * 0.2 * 0.5, abs=0.015)
    assert Conditioner([Label(10, 8, dropout=0.0)]).drops(BatchNoise(0, 0, torch.arange(9), 9)).sum() == 0


def test_tokens_of_two_embedders_stand_one_after_the_other_with_their_masks():
    texts = [SmallText(8, depth=1, num_heads=2, context_length=length, table_width=4) for length in (6, 9)]
    told, keep = batch(), torch.zeros(ROWS, dtype=torch.bool)
    cond = Conditioner(texts)(told, keep)
    one, other = (text(told, keep) for text in texts)
    assert torch.equal(cond.tokens, torch.cat([one.tokens, other.tokens], dim=1))
    assert torch.equal(cond.mask, torch.cat([one.mask, other.mask], dim=1))


def test_without_embedders_nothing_is_heard_and_nothing_trained():
    conditioner = Conditioner()
    assert list(conditioner.parameters()) == []
    assert conditioner(batch(), torch.zeros(ROWS, dtype=torch.bool)) == Conditioning()
    assert conditioner.drops(BatchNoise(0, 0, torch.arange(3), 3)).shape == (3, 0)


@pytest.mark.parametrize("num_classes", [1, 10, 1000])
def test_the_null_row_of_labels_stands_at_num_classes(num_classes):
    label = Label(num_classes, 8)
    assert label.embedding.weight.shape == (num_classes + 1, 8)
    null = label({}, torch.ones(2, dtype=torch.bool)).vector
    assert torch.equal(null, label.embedding.weight[[num_classes, num_classes]])


def test_a_label_gives_its_own_row_and_dropped_rows_train_the_null_alone():
    label = Label(10, 8)
    assert torch.equal(label(batch(), torch.zeros(4, dtype=torch.bool)).vector, label.embedding.weight[[3, 9, 0, 3]])
    label(batch(), torch.tensor([True, False, True, False])).vector.sum().backward()
    assert label.embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [3, 9, 10]


def test_a_label_as_a_token_is_the_same_row():
    torch.manual_seed(0)
    label, keep = Label(10, 8, as_token=True), torch.zeros(4, dtype=torch.bool)
    assert torch.equal(label(batch(), keep).tokens[:, 0], label.embedding.weight[[3, 9, 0, 3]])
    assert label(batch(), keep).vector is None


NAMES = ["cat", "dog", "hot dog", "7", "Kätzchen"]


@pytest.mark.parametrize(
    ("text", "number"), [("cat", 0), ("dog", 1), ("HOT", 2), ("hot dog", 2), ("4", 4), ("#3", 3), ("kätz", 4), ("0", 0)]
)
def test_a_class_by_number_name_or_part_of_a_name(text, number):
    label = Label(5, 8)
    label.name_classes(NAMES)
    assert label.read("labels", text) == number


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("do", r"'do' may be any of #1 \(dog\), #2 \(hot dog\)"),
        ("7", r"'7' may be any of #3 \(7\), #7"),
        ("bird", r"no class 'bird': the model knows #0 \(cat\), #1 \(dog\), .*#4 \(Kätzchen\)"),
        ("", "no class ''"),
    ],
)
def test_a_name_that_is_unknown_or_ambiguous_lists_the_candidates(text, told):
    label = Label(5, 8)
    label.name_classes(NAMES)
    with pytest.raises(UserError, match=told):
        label.read("labels", text)
    with pytest.raises(UserError, match="knows no class names"):
        Label(5, 8).read("labels", "cat")


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="num_classes is 0"):
        Label(0, 8)
    for dropout in (-0.1, 1.0):
        for make in (lambda d: Label(10, 8, d), lambda d: Conditioner([], d), lambda d: Number("score", 8, dropout=d)):
            with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
                make(dropout)
