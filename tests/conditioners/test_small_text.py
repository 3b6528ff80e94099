"""The text encoder that is trained with the denoiser."""

import copy
import warnings

import pytest
import torch

from ldm.conditioners import Conditioner, captions
from ldm.conditioners.captions import clip_ids, clip_tokenizer
from ldm.conditioners.small_text import SmallText
from ldm.errors import UserError

LONG = " ".join(["circle"] * 9) + " and the very end"


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    return SmallText(16, depth=2, num_heads=2, context_length=8, vector_width=6, table_width=4)


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    monkeypatch.setattr(captions, "warned", set())


def hear(embedder, *texts, drop=None):
    drop = [False] * len(texts) if drop is None else drop
    return embedder({"captions": list(texts)}, torch.tensor(drop))


def test_words_stand_between_start_and_end_and_the_rest_is_padding():
    ids, mask = clip_ids(["a red circle", ""], 8)
    start, end = clip_tokenizer().sot_token_id, clip_tokenizer().eot_token_id
    assert mask.sum(1).tolist() == [5, 2]
    assert ids[:, 0].tolist() == [start, start]
    assert ids[0, 4] == ids[1, 1] == end
    assert not ids[~mask].any()
    assert clip_tokenizer().decode(ids[0, 1:4].tolist()).strip() == "a red circle"


def test_no_token_hears_the_padding_and_every_token_hears_every_other(embedder):
    short = hear(embedder, "a red circle")
    longer = SmallText(16, depth=2, num_heads=2, context_length=12, vector_width=6, table_width=4)
    weights = dict(embedder.state_dict())
    weights["positions"] = torch.cat([weights["positions"], torch.randn(4, 16)])
    longer.load_state_dict(weights)
    padded = hear(longer, "a red circle")
    torch.testing.assert_close(padded.tokens[:, :5], short.tokens[:, :5])
    torch.testing.assert_close(padded.vector, short.vector)
    assert padded.mask.tolist() == [[True] * 5 + [False] * 7]
    other = hear(embedder, "a red square")
    assert (
        (other.tokens[:, :5] - short.tokens[:, :5]).abs().amax(-1).gt(1e-6).all()
    )  # the last word, heard by the first


def test_a_dropped_row_hears_the_empty_caption_whatever_its_own(embedder):
    empty = hear(embedder, "")
    mixed = hear(embedder, "a red circle", "a blue square", drop=[True, False])
    nothing = embedder({}, torch.tensor([True, True]))
    for cond in (mixed, nothing):
        torch.testing.assert_close(cond.tokens[:1], empty.tokens)
        assert torch.equal(cond.mask[:1], empty.mask)
    torch.testing.assert_close(mixed.tokens[1:], hear(embedder, "a blue square").tokens)


def test_what_is_cut_is_said_once(embedder):
    with pytest.warns(UserWarning, match="'circle circle circle and the very end'"):
        cut = hear(embedder, LONG)
    assert cut.mask.all()
    assert torch.equal(cut.tokens, hear(embedder, "circle " * 6).tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hear(embedder, LONG)


def test_a_set_of_long_captions_does_not_fill_the_screen(embedder):
    with pytest.warns(UserWarning) as said:  # noqa: PT030
        hear(embedder, *(f"{LONG} {i}" for i in range(30)))
    assert len(said) == captions.MOST_WARNED + 1
    assert "cut without a word" in str(said[-1].message)


def test_the_vector_starts_at_nothing_and_learns(embedder):
    model = copy.deepcopy(embedder)
    vector = hear(model, "a red circle").vector
    assert vector.shape == (1, 6)
    assert not vector.any()
    vector.sum().backward()
    assert model.to_vector.weight.grad.abs().sum() > 0
    assert hear(SmallText(16, 1, 2, 8), "a red circle").vector is None


def test_every_weight_is_trained(embedder):
    model = copy.deepcopy(embedder)
    torch.nn.init.ones_(model.to_vector.weight)
    cond = hear(model, "a red circle", "two")
    ((cond.tokens * torch.randn_like(cond.tokens))[cond.mask].sum() + cond.vector.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())
    moved = model.table.weight.grad.abs().sum(1).nonzero().flatten()
    ids, mask = clip_ids(["a red circle", "two"], 8)
    assert moved.tolist() == ids[mask].unique().tolist()


def test_with_a_convolution_words_hear_their_neighbours_before_any_attention():
    model = SmallText(16, depth=1, num_heads=2, context_length=10, convolution=3)
    for layer in (model.blocks[0].attention.out, model.blocks[0].leave):  # the block adds nothing
        torch.nn.init.zeros_(layer.weight)
    one, other = hear(model, "a red circle"), hear(model, "a blue circle")
    moved = (one.tokens - other.tokens).abs().amax(-1)[0].gt(1e-4)  # start, a, the colour, circle, end, padding
    assert moved.tolist() == [False, True, True, True] + [False] * 6
    assert model.neighbours.weight.shape == (16, 1, 3)  # depthwise
    assert model.neighbours.bias is None
    one.tokens.square().sum().backward()
    assert model.neighbours.weight.grad.abs().sum() > 0
    torch.nn.init.zeros_(model.neighbours.weight)  # it is added: without it the words are left
    plain = SmallText(16, depth=1, num_heads=2, context_length=10)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "neighbours.weight"})
    assert torch.equal(hear(model, "a red circle").tokens, hear(plain, "a red circle").tokens)


def test_with_a_convolution_no_token_hears_the_padding():
    torch.manual_seed(0)
    short = SmallText(16, depth=2, num_heads=2, context_length=5, convolution=5)
    longer = SmallText(16, depth=2, num_heads=2, context_length=12, convolution=5)
    weights = dict(short.state_dict())
    weights["positions"] = torch.cat([weights["positions"], torch.randn(7, 16)])
    longer.load_state_dict(weights)
    torch.testing.assert_close(hear(longer, "a red circle").tokens[:, :5], hear(short, "a red circle").tokens)


def test_it_works_within_a_conditioner_and_takes_its_text_as_it_stands(embedder):
    conditioner = Conditioner([embedder])
    assert conditioner.keys == ("captions",)
    assert embedder.read("captions", "3: a [red] circle") == "3: a [red] circle"
    embedder.check_asked({"captions": ["a red circle", ""]})
    with pytest.raises(UserError, match="3 is none"):
        embedder.check_asked({"captions": [3]})
    with pytest.raises(UserError, match="SmallText reads 'captions'"):
        conditioner({}, torch.tensor([False, True]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"context_length": 2}, "context_length of 2"),
        ({"depth": 0}, "depth is 0"),
        ({"num_heads": 3}, "3 heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"vector_width": 0}, "vector_width is 0"),
        ({"convolution": 4}, "convolution is 4: it is an odd number"),
        ({"convolution": -1}, "convolution is -1"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        SmallText(8, **{"num_heads": 2, "depth": 1, **arguments})
