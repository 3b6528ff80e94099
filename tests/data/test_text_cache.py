"""Embeddings as members of a sample: what is stored comes back, and what is broken is named."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from ldm.data import Manifest
from ldm.data.index import is_member
from ldm.data.manifest import TextContract
from ldm.data.text_cache import caption_list, from_members, load_empty, save_empty, to_members
from ldm.errors import UserError
from ldm.text import Text

CONTRACT = TextContract("a+b-1", "f" * 64, token_width=3, context_length=5, pooled_width=2, dtype="float32")


def texts(*lengths, pooled=True):
    generator = torch.Generator().manual_seed(0)
    return [
        Text(
            torch.randn(1, 5, 3, generator=generator),
            torch.arange(5)[None] < length,
            torch.randn(1, 2, generator=generator) if pooled else None,
        )
        for length in lengths
    ]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_caption_comes_back_filled_up_with_nothing(dtype):
    contract, given = dataclasses.replace(CONTRACT, dtype=dtype), texts(2, 4, 1)
    members = to_members(contract, given, "sample")
    assert all(is_member(name) for name in members)
    for place, text in enumerate(given):
        found = from_members(members, [contract], place, "sample")
        assert set(found) == contract.entries()
        assert found["text.a+b-1.tokens"].dtype == getattr(torch, dtype)
        mask = found["text.a+b-1.mask"]
        assert torch.equal(mask, text.mask[0])
        assert torch.equal(found["text.a+b-1.tokens"][mask], text.tokens[0][mask].to(getattr(torch, dtype)))
        assert found["text.a+b-1.tokens"].shape == (5, 3)
        assert not found["text.a+b-1.tokens"][4].any()
        assert torch.equal(found["text.a+b-1.pooled"], text.pooled[0].to(getattr(torch, dtype)))


def test_an_encoder_without_a_pooled_vector_and_a_caption_without_a_token():
    contract = dataclasses.replace(CONTRACT, pooled_width=None)
    members = to_members(contract, texts(0, pooled=False), "sample")
    found = from_members(members, [contract], 0, "sample")
    assert set(found) == {"text.a+b-1.tokens", "text.a+b-1.mask"}
    assert not found["text.a+b-1.mask"].any()


def test_numbers_that_cannot_be_stored_are_refused():
    (text,) = texts(2)
    half = dataclasses.replace(CONTRACT, dtype="float16")
    with pytest.raises(UserError, match=r"sample 'k': .*beyond float16: store float32"):
        to_members(half, [text.each(lambda x: x if x.dtype == torch.bool else x * 1e6)], "sample 'k'")
    with pytest.raises(UserError, match="no finite numbers"):
        to_members(CONTRACT, [dataclasses.replace(text, pooled=text.pooled / 0)], "sample 'k'")


def test_members_that_are_not_what_the_manifest_says_are_named():
    members = to_members(CONTRACT, texts(2, 3), "sample")
    name = "text.a+b-1.tokens.npy"
    for wrong, message in {
        "lacking": "WHERE has no text.a",
        "torn": "cannot be read",
        "pickled": "cannot be read",
        "wide": r"float32 \(3, 4\), but the manifest says finite float32 \(3, 3\)",
        "long": r"\(9, 3\), but the manifest says finite float32 \(5, 3\)",
        "half": "are float16",
        "nan": "finite",
        "flat": r"\(1,\), but",
    }.items():
        arrays = {
            "pickled": np.array([{}], dtype=object),
            "wide": np.zeros((2, 3, 4), np.float32),
            "long": np.zeros((2, 9, 3), np.float32),
            "half": np.zeros((2, 3, 3), np.float16),
            "nan": np.full((2, 3, 3), np.nan, np.float32),
            "flat": np.zeros(2, np.float32),
        }
        bad = dict(members)
        if wrong == "lacking":
            bad.pop(name)
        else:
            bad[name] = members[name][:-9] if wrong == "torn" else npy_bytes(arrays[wrong])
        with pytest.raises(UserError, match=message):
            from_members(bad, [CONTRACT], 0, "WHERE")
    with pytest.raises(UserError, match="out of bounds"):
        from_members(members, [CONTRACT], 2, "WHERE")


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_the_empty_caption_stands_beside_the_manifest(tmp_path):
    (empty,) = texts(1)
    save_empty(tmp_path, CONTRACT, empty)
    found = load_empty(tmp_path, CONTRACT)
    assert all(torch.equal(value, found.parts()[name]) for name, value in empty.parts().items())
    with pytest.raises(UserError, match="is what the manifest says"):
        load_empty(tmp_path, dataclasses.replace(CONTRACT, token_width=4))
    (tmp_path / "text.a+b-1.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        load_empty(tmp_path, CONTRACT)


def test_all_captions_of_a_sample_are_those_that_one_is_drawn_of():
    assert caption_list({"json": b'{"captions": ["a", "b"]}', "txt": b"a"}, "x") == ["a", "b"]
    assert caption_list({"json": b'{"captions": "a"}'}, "x") == ["a"]
    assert caption_list({"json": b"{}", "txt": b"c"}, "x") == ["c"]
    with pytest.raises(UserError, match="x has no caption"):
        caption_list({"json": b"{}"}, "x")


def test_a_manifest_from_before_there_were_texts_loads(tmp_path):
    Manifest("images", [], texts=[CONTRACT]).save(tmp_path)
    assert Manifest.load(tmp_path).texts == [CONTRACT]
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"texts"', '"something_else"'))
    assert Manifest.load(tmp_path).texts == []


def test_only_such_names_are_members():
    for name in ("text.t5.tokens.npy", "text.a+b-1.mask.npy", "text.x.pooled.npy", "latent.npy"):
        assert is_member(name)
    for name in ("text.t5.npy", "text.T5.tokens.npy", "text.a.b.tokens.npy", "text..mask.npy", "text.x.tokens.pickle"):
        assert not is_member(name)
