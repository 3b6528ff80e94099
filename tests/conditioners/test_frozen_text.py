"""The embedder of a frozen text encoder, on the fly and from embeddings that are kept with the data."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ldm.conditioners import Conditioner, FrozenText
from ldm.conditioners.encoders import Text, TextEncoder
from ldm.errors import UserError

CAPTIONS = ["a red circle", "two", "three blue squares", ""]
NOBODY = torch.zeros(4, dtype=torch.bool)


class Letters(TextEncoder):
    """Each word by a random table of its first letter."""

    name, token_width, pooled_width, context_length = "letters", 6, 4, 5
    file_arguments = ("weights",)

    def __init__(self, weights):
        self.weights = weights
        self.asked = []

    def settings(self):
        return {}

    def load(self):
        return torch.load(self.weights, weights_only=False)

    def run(self, model, captions, device):
        self.asked += captions
        words = [[1 + ord(word[0]) % 31 for word in caption.split()[:4]] for caption in captions]
        ids = torch.tensor([[*line, *[0] * (5 - len(line))] for line in words], device=device)
        lengths = torch.tensor([len(line) + 1 for line in words], device=device)
        tokens = model(ids)
        return Text(tokens, torch.arange(5, device=device) < lengths[:, None], tokens.mean(1)[:, :4])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("letters") / "letters.pt"
    torch.save(nn.Embedding(32, 6), path)
    return str(path)


def make(weights, **arguments):
    torch.manual_seed(1)
    embedder = FrozenText(Letters(weights), **arguments)
    if embedder.to_vector is not None:
        nn.init.normal_(embedder.to_vector.weight)
    return embedder


def kept(encoder, captions, dtype=torch.float32):
    """A batch with the embeddings of its captions."""
    text = encoder.encode(captions, torch.device("cpu"))
    entries = {name: getattr(text, name) for name in ("tokens", "mask", "pooled")}
    entries = {name: x.to(dtype) if x.is_floating_point() else x for name, x in entries.items()}
    return {"captions": captions, **{f"text.letters.{name}": x for name, x in entries.items()}}


def data(encoder=None, **other):
    """A data module that keeps the embeddings of an encoder, or none."""
    module = SimpleNamespace(shards="SHARDS", provides={"images", "captions"}, **other)
    if encoder is not None:
        cache = SimpleNamespace(fingerprint=encoder.fingerprint(), empty=encoder.encode([""], torch.device("cpu")))
        module.text_cache = lambda name: cache if name == encoder.name else None
    return module


ARGUMENTS = [
    {},
    {"dropped": "learned"},
    {"width": 3, "vector_width": 7},
    {"dropped": "learned", "width": 3, "vector_width": 7},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_a_dropped_row_hears_the_null_whatever_its_caption(weights, arguments):
    embedder = make(weights, **arguments)
    drop = torch.tensor([True, False, True, False])
    mixed, all_heard = embedder({"captions": CAPTIONS}, drop), embedder({"captions": CAPTIONS}, NOBODY)
    nothing = embedder({}, ~NOBODY)
    for name in ("tokens", "mask", "vector"):
        mix, heard, null = (getattr(cond, name) for cond in (mixed, all_heard, nothing))
        if mix is None:
            assert name == "vector"
            assert heard is null is None
            continue
        assert torch.equal(mix[drop], null[drop])
        assert torch.equal(mix[~drop], heard[~drop])
    assert mixed.tokens.shape == (4, 5, arguments.get("width", 6))
    assert nothing.mask.any(1).all()  # a row without a token is nothing to attend to
    if arguments.get("dropped") != "learned":
        torch.testing.assert_close(nothing.tokens[3], all_heard.tokens[3], rtol=1e-6, atol=1e-7)  # the empty caption


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_kept_embeddings_give_exactly_what_encoding_gives(weights, arguments):
    embedder = make(weights, **arguments)
    drop = torch.tensor([True, False, False, False])
    batch = kept(Letters(weights), CAPTIONS)
    on_the_fly = embedder({"captions": CAPTIONS}, drop)
    other = make(weights, **arguments)
    other.check_data(data(Letters(weights)))
    from_data = other(batch, drop)
    assert other.encoder.asked == []
    for name in ("tokens", "mask", "vector"):
        one, two = getattr(on_the_fly, name), getattr(from_data, name)
        assert (one is None and two is None) or torch.equal(one, two)


def test_half_precision_is_kept_apart_from_the_network(weights):
    embedder, batch = make(weights), kept(Letters(weights), CAPTIONS, torch.float16)
    cond = embedder(batch, NOBODY)
    assert cond.tokens.dtype == torch.float32
    torch.testing.assert_close(cond.tokens, embedder({"captions": CAPTIONS}, NOBODY).tokens, rtol=1e-3, atol=1e-3)


def test_with_kept_embeddings_the_encoders_files_need_not_be_there(weights):
    embedder = FrozenText(Letters("nowhere.pt"))
    embedder.check_data(data(Letters(weights)))
    cond = embedder(kept(Letters(weights), CAPTIONS), ~NOBODY)
    assert torch.equal(cond.tokens, make(weights)({}, ~NOBODY).tokens)
    assert embedder.fingerprint() == Letters(weights).fingerprint()
    with pytest.raises(UserError, match=r"weights from nowhere\.pt"):
        embedder.check_asked({"captions": ["a prompt"]})
    with pytest.raises(UserError, match=r"weights from nowhere\.pt"):
        FrozenText(Letters("nowhere.pt")).check_data(data())


def test_embeddings_of_another_encoder_are_refused(weights, tmp_path):
    torch.save(nn.Embedding(32, 6), tmp_path / "other.pt")
    other = Letters(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match="SHARDS keeps embeddings") as said:
        make(weights).check_data(data(other))
    for encoder in (Letters(weights), other):
        assert encoder.fingerprint()[:12] in str(said.value)
    with pytest.raises(ValueError, match="reads 'captions'"):
        make(weights).check_data(SimpleNamespace(shards="SHARDS", provides={"images"}))
    without = data(Letters(weights))
    cache = without.text_cache("letters")
    cache.empty = Text(cache.empty.tokens, cache.empty.mask)
    with pytest.raises(ValueError, match="no pooled vector"):
        make(weights, vector_width=3).check_data(without)


def test_the_frozen_weights_are_nobodys_parameters(weights):
    embedder = make(weights)
    conditioner = Conditioner([embedder])
    conditioner({"captions": CAPTIONS}, NOBODY)
    assert isinstance(embedder.encoder._model, nn.Embedding)
    for module in (embedder, conditioner):
        assert not list(module.parameters())
        assert not module.state_dict()
    assert conditioner.fingerprints() == [Letters(weights).fingerprint()]
    projected = make(weights, dropped="learned", width=3, vector_width=7)
    assert {name.split(".")[0] for name in projected.state_dict()} == {
        "to_tokens",
        "to_vector",
        "null_token",
        "null_vector",
    }


def test_a_copy_shares_the_encoder_and_not_what_is_trained(weights):
    embedder = make(weights, width=3)
    embedder({"captions": CAPTIONS}, NOBODY)
    twin = copy.deepcopy(embedder)
    assert twin.encoder is embedder.encoder
    assert twin.to_tokens.weight is not embedder.to_tokens.weight
    assert torch.equal(twin({}, ~NOBODY).tokens, embedder({}, ~NOBODY).tokens)


def test_what_is_made_while_sampling_can_be_trained_with(weights):
    embedder = make(weights, width=3)
    with torch.inference_mode():
        embedder({"captions": CAPTIONS}, torch.tensor([True, False, False, False]))
    embedder({"captions": CAPTIONS}, torch.tensor([True, False, False, False])).tokens.sum().backward()
    assert embedder.to_tokens.weight.grad.abs().sum() > 0


def test_images_of_one_prompt_ask_once(weights):
    embedder = make(weights)
    cond = embedder({"captions": ["two", "one", "two", "two"]}, NOBODY)
    assert embedder.encoder.asked == ["", "two", "one"]  # the null first
    one_by_one = [make(weights)({"captions": [caption]}, NOBODY[:1]).tokens for caption in ("two", "one", "two", "two")]
    assert torch.equal(cond.tokens, torch.cat(one_by_one))


def test_the_vector_starts_at_nothing_and_learns(weights):
    embedder = FrozenText(Letters(weights), vector_width=7)
    vector = embedder({"captions": CAPTIONS}, NOBODY).vector
    assert vector.shape == (4, 7)
    assert not vector.any()
    vector.sum().backward()
    assert embedder.to_vector.weight.grad.abs().sum() > 0


def test_it_follows_to_another_device(weights):
    """The meta device stands for any: nothing may be made elsewhere than where the rows to drop are."""
    seen = []

    class Elsewhere(Letters):
        def run(self, model, captions, device):
            seen.append((device.type, next(model.parameters()).device.type))
            return super().run(model, captions, device)

    embedder = FrozenText(Elsewhere(weights), dropped="learned", width=3, vector_width=7).to("meta")
    cond = embedder({"captions": ["two", "one"]}, torch.zeros(2, dtype=torch.bool, device="meta"))
    assert seen == [("meta", "meta")]
    assert {x.device.type for x in (cond.tokens, cond.mask, cond.vector)} == {"meta"}


def test_what_cannot_be_built_or_asked_is_refused(weights):
    silent = Letters(weights)
    silent.pooled_width = None
    with pytest.raises(ValueError, match="gives no pooled vector"):
        FrozenText(silent, vector_width=3)
    with pytest.raises(ValueError, match="dropout"):
        FrozenText(Letters(weights), dropout=1.0)
    with pytest.raises(UserError, match="5 is none"):
        make(weights).check_asked({"captions": [5]})
    assert make(weights).read("captions", "3: a [red] circle") == "3: a [red] circle"


def test_an_embedder_that_was_first_heard_in_validation_can_be_trained(weights):
    """What it keeps of the empty caption is no inference tensor, which a backward pass could not hold."""
    embedder = make(weights, width=3, vector_width=7)
    with torch.inference_mode():
        embedder({}, ~NOBODY)
    cond = embedder({"captions": CAPTIONS}, torch.tensor([True, False, True, False]))
    (cond.tokens.sum() + cond.vector.sum()).backward()
    assert all(parameter.grad is not None for parameter in embedder.parameters())
    assert not embedder.empty.tokens.is_inference()
