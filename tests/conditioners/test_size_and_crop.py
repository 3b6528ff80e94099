"""Sizes, crops and other numbers by sinusoids."""

from types import SimpleNamespace

import pytest
import torch

from ldm.conditioners import Conditioner, Number, SizeAndCrop
from ldm.errors import UserError

SIZES = {"original_size": torch.tensor([[64, 80], [80, 64], [64, 80]]), "crop": torch.tensor([[0, 8], [0, 8], [8, 0]])}
NONE = torch.zeros(3, dtype=torch.bool)


def test_each_of_the_four_numbers_and_its_place_counts():
    found = SizeAndCrop(8, [64, 64])(SIZES, NONE).vector
    assert all((found[i] - found[j]).abs().max() > 1e-5 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_dropped_row_is_the_null_whatever_the_batch():
    embedder = SizeAndCrop(8, [64, 64])
    torch.nn.init.normal_(embedder.null)
    mixed = embedder(SIZES, torch.tensor([True, False, True])).vector
    assert torch.equal(mixed[[0, 2]], embedder.null.expand(2, -1))
    assert torch.equal(mixed[1], embedder(SIZES, NONE).vector[1])
    assert torch.equal(Conditioner([embedder])({}, ~NONE).vector, embedder.null.expand(3, -1))


def test_a_user_need_not_name_sizes_and_may():
    embedder = SizeAndCrop(8, [48, 64])
    assert embedder.defaults == {"original_size": [48, 64], "crop": [0, 0]}
    assert set(embedder.keys) == set(embedder.defaults)
    for text, value in (
        ("512x768", [512, 768]),
        ("[512, 768]", [512, 768]),
        ("512,768", [512, 768]),
        ("512", [512] * 2),
    ):
        assert embedder.read("original_size", text) == value
    embedder.check_asked({"original_size": [[512, 768]], "crop": [[0, 0]]})
    with pytest.raises(UserError, match="original_size is two numbers of pixels of at least 1"):
        embedder.check_asked({"original_size": [[0, 768]]})
    for text in ("large", "1,2,3", "inf"):
        with pytest.raises(UserError, match=r"crop is 2 numbers"):
            embedder.read("crop", text)


def test_data_without_sizes_are_refused_with_what_they_have():
    data = SimpleNamespace(provides={"moments", "labels"}, shards="latents/")
    with pytest.raises(ValueError, match=r"SizeAndCrop reads 'original_size', and latents/ gives labels, moments"):
        SizeAndCrop(8, [64, 64]).check_data(data)
    SizeAndCrop(8, [64, 64]).check_data(SimpleNamespace(provides={"original_size", "crop"}, shards="x"))


def test_a_number_is_scaled_and_told():
    torch.manual_seed(0)
    plain, scaled = Number("score", 8), Number("score", 8, scale=10)
    scaled.load_state_dict(plain.state_dict())
    one = plain({"score": torch.tensor([10, 20, 30])}, NONE).vector
    other = scaled({"score": torch.tensor([1.0, 2.0, 3.0])}, NONE).vector
    assert torch.equal(one, other)
    assert len({tuple(row.tolist()) for row in one}) == 3
    assert plain.read("score", "6.5") == 6.5
    with pytest.raises(UserError, match="reads one number in 'score', and finds 2 of each sample"):
        plain({"score": torch.ones(3, 2)}, NONE)
    assert Number("score", 8, default=5).defaults == {"score": 5}
    assert not plain.defaults


def test_what_cannot_be_built_is_refused():
    for wrong in ([64], [64, 0], [1, 2, 3]):
        with pytest.raises(ValueError, match="default_size is"):
            SizeAndCrop(8, wrong)
    with pytest.raises(ValueError, match="num_frequencies is 7"):
        SizeAndCrop(8, [64, 64], num_frequencies=7)
    with pytest.raises(ValueError, match="scale 0"):
        Number("score", 8, scale=0)
