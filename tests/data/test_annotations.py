"""What stands beside an image becomes entries of its sample: fields of its json, one of its captions, its sizes."""

import json
from pathlib import Path

import pytest
import torch
from data_pictures import picture
from PIL import Image

from ldm.data import (
    ImageTransform,
    Manifest,
    Order,
    ShardData,
    ShardDataset,
    ShardLoader,
    ShardWriter,
    StreamDataset,
    StreamLoader,
    pack,
)
from ldm.data.annotations import caption_of, collated, parse_fields
from ldm.data.dataset import collate
from ldm.errors import UserError
from ldm.seeding import seeded_generator

CAPTIONS = {"captions": ["one", "two", "three"], "caption_weights": [1, 0, 3]}


def write_set(folder: Path, contents: list[dict | bytes | None], **manifest: object) -> Path:
    """Shards by hand, one sample for each json member."""
    folder.mkdir()
    with ShardWriter(folder / "shard-000000.tar") as writer:
        for number, content in enumerate(contents):
            picture(number, (8, 8)).save(folder / "image.png")
            members: dict[str, bytes | str] = {"png": (folder / "image.png").read_bytes()}
            if content is not None:
                members["json"] = content if isinstance(content, bytes) else json.dumps(content)
            writer.add(f"sample{number}", members)
    (folder / "image.png").unlink()
    Manifest("images", [writer.info], **manifest).save(folder)
    return folder


def batch_of(folder: Path) -> dict:
    dataset = ShardDataset(folder, ImageTransform(8))
    return collate([dataset[place] for place in range(len(dataset))])


def test_fields_become_entries_by_their_names(tmp_path: Path) -> None:
    rows = [
        {"score": 6, "tags": [1, 2], "big": True, "source": "a", "box": [0.5, 1], "rest": [[1], ["x"]]},
        {"score": 6.5, "tags": [3, 4], "big": False, "source": "b", "box": [2, 3], "rest": {}},
    ]
    batch = batch_of(write_set(tmp_path / "s", rows))
    assert torch.equal(batch["score"], torch.tensor([6, 6.5]))
    assert torch.equal(batch["tags"], torch.tensor([[1, 2], [3, 4]]))
    assert batch["tags"].dtype == torch.int64
    assert torch.equal(batch["big"], torch.tensor([True, False]))
    assert torch.equal(batch["box"], torch.tensor([[0.5, 1], [2, 3]]))
    assert batch["source"] == ["a", "b"]
    assert batch["rest"] == [[[1], ["x"]], {}]


def test_no_field_takes_the_place_of_what_the_data_make(tmp_path: Path) -> None:
    names = ("keys", "shards", "positions", "step", "images", "moments", "labels", "maps", "original_size", "crop")
    folder = write_set(tmp_path / "s", [dict.fromkeys(names, 99)])
    batch, plain = batch_of(folder), batch_of(write_set(tmp_path / "plain", [None]))
    assert set(batch) == set(plain)
    assert all(torch.equal(batch[k], plain[k]) for k in ("images", "positions", "original_size", "crop"))


def test_what_a_sample_lacks_is_none_in_its_place() -> None:
    samples = [{"keys": "a", "x": 1}, {"keys": "b", "y": torch.zeros(2)}, {"keys": "c", "x": 3}]
    batch = collate(samples)
    assert batch["x"] == [1, None, 3]
    assert batch["y"][0] is None
    assert torch.equal(batch["y"][1], torch.zeros(2))
    assert collated([[1, 2], [3]]) == [[1, 2], [3]]
    assert collated([2**64 - 1, 3]) == [2**64 - 1, 3]
    assert parse_fields(b'{"score": NaN, "other": 1}') == {"score": None, "other": 1}


def test_captions_are_drawn_with_their_weights_in_training_and_the_first_else(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "s", [CAPTIONS] * 4)
    dataset = ShardDataset(folder, ImageTransform(8), order=Order([4], 4, seed=3), augment=True)
    drawn = [dataset.load(position)["captions"] for position in range(12)]
    assert drawn == [caption_of(CAPTIONS, seeded_generator("caption", 3, position)) for position in range(12)]
    many = [caption_of(CAPTIONS, seeded_generator("caption", 3, position)) for position in range(600)]
    assert "two" not in many
    assert many.count("three") / 600 == pytest.approx(0.75, abs=0.06)
    assert batch_of(folder)["captions"] == ["one"] * 4
    unweighted = [caption_of({"captions": ["a", "b"]}, seeded_generator("x", i)) for i in range(400)]
    assert unweighted.count("a") / 400 == pytest.approx(0.5, abs=0.1)


def test_a_resumed_run_hears_the_same_captions(tmp_path: Path) -> None:
    dataset = ShardDataset(
        write_set(tmp_path / "s", [CAPTIONS] * 8), ImageTransform(8), order=Order([8], 2, seed=3), augment=True
    )
    whole = list(ShardLoader(dataset, 2))
    rest = list(ShardLoader(dataset, 2, consumed=4))
    assert [batch["captions"] for batch in rest] == [batch["captions"] for batch in whole[2:]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{broken", "its json cannot be used"),
        (b"\xff", "it is not UTF-8"),
        (b"[1]", "it is no object of fields"),
        ({"captions": []}, "no list of texts"),
        ({"captions": [1]}, "no list of texts"),
        ({"captions": ["a"], "caption_weights": [1, 2]}, "one number of at least 0 for each of its 1 captions"),
        ({"captions": ["a"], "caption_weights": [0]}, "one number of at least 0"),
        ({"caption_weights": [1]}, "caption_weights and no captions"),
        (b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_json_that_cannot_be_used_names_sample_and_shard(tmp_path: Path, content: object, reason: str) -> None:
    dataset = ShardDataset(write_set(tmp_path / "s", [content]), ImageTransform(8))
    with pytest.raises(UserError, match=rf"(?s)sample 'sample0' in shard .*{reason}"):
        dataset.load(0)


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A class folder and what stands beside its images; one has a broken json, one a field less."""
    source = tmp_path / "source" / "only"
    source.mkdir(parents=True)
    for i in range(4):
        picture(i, (12, 10)).save(source / f"photo.{i}.jpg")
        (source / f"photo.{i}.json").write_text(json.dumps({"score": i, "odd": 1} if i else {"score": i}))
    (source / "photo.3.json").write_text("{")
    return source


@pytest.mark.parametrize("flat", [True, False])
def test_json_is_packed_and_the_manifest_says_what_all_samples_have(
    described: Path, tmp_path: Path, flat: bool
) -> None:
    report = pack(str(described if flat else described.parent), str(tmp_path / "out"))
    assert report.skipped == {"json cannot be used": 1}
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.fields == ["score"]
    batch = batch_of(tmp_path / "out")
    assert sorted(batch["score"].tolist()) == [0, 1, 2]
    assert sorted(map(str, batch["odd"])) == ["1", "1", "None"]
    labels = set() if flat else {"labels"}
    assert ShardData(str(tmp_path / "out"), size=8).provides == {"images", "score", "original_size", "crop", *labels}


def test_captions_of_a_json_are_captions(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(2):
        picture(i).save(source / f"{i}.png")
        (source / f"{i}.json").write_text(json.dumps(CAPTIONS))
    pack(str(source), str(tmp_path / "json"))
    assert "captions" in ShardData(str(tmp_path / "json"), size=8).provides
    assert batch_of(tmp_path / "json")["captions"] == ["one", "one"]
    (source / "0.json").unlink()
    (source / "0.txt").write_text("a text")
    report = pack(str(source), str(tmp_path / "both"))
    assert report.empty_captions == 0
    assert sorted(batch_of(tmp_path / "both")["captions"]) == ["a text", "one"]


def test_validation_without_a_field_does_not_provide_it(tmp_path: Path) -> None:
    train = write_set(tmp_path / "train", [{"score": 1}], fields=["score"])
    val = write_set(tmp_path / "val", [None])
    assert "score" in ShardData(str(train), size=8).provides
    assert "score" not in ShardData(str(train), str(val), size=8).provides


def test_a_manifest_from_before_there_were_fields_is_read(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "s", [None])
    content = json.loads((folder / "manifest.json").read_text())
    del content["fields"]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert Manifest.load(folder).fields == []


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_original_size_is_that_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(0, (12, 10)).save(source / "a.jpg", exif=exif.tobytes())
    pack(str(source), str(tmp_path / "out"))
    assert batch_of(tmp_path / "out")["original_size"].tolist() == [[10, 12] if orientation == 1 else [12, 10]]


@pytest.mark.filterwarnings("ignore:left out")
def test_a_stream_gives_the_same_entries(tmp_path: Path) -> None:
    rows = [CAPTIONS | {"score": 1}, CAPTIONS | {"score": 2}, b"{broken", {"score": 3}]
    folder = write_set(tmp_path / "s", rows)
    (folder / "manifest.json").unlink()
    stream = StreamDataset([str(folder / "shard-000000.tar")], ImageTransform(8), shuffle_buffer=1)
    batches = list(StreamLoader(stream, samples_per_epoch=90, batch_size=3))
    assert all(sorted(batch["score"].tolist()) == [1, 2, 3] for batch in batches)
    heard = [caption for batch in batches for caption in batch["captions"]]
    assert set(heard) == {"one", "three", None}  # None: it has no caption; an embedder of captions names it
    assert heard.count("three") / 60 == pytest.approx(0.75, abs=0.2)
    assert batches[0]["shards"][0] == str(folder / "shard-000000.tar")
    assert batches[0]["original_size"].tolist() == [[8, 8]] * 3
