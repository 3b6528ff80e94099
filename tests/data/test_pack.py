import json
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_pictures import class_folders, picture
from PIL import Image
from sklearn.datasets import load_digits

from ldm.data import ImageTransform, Manifest, ShardDataset, ShardReader, pack, verify
from ldm.data.output import SKIPPED
from ldm.errors import UserError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        pack(str(folder), str(tmp_path / out), shard_size=4, num_workers=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert verify(tmp_path / "a").num_samples == 15
    pack(str(folder), str(tmp_path / "c"), shard_size=4, seed=1)
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_kept_files_are_stored_byte_for_byte_and_labels_follow_the_class_names(folder: Path, packed: Path) -> None:
    reader = ShardReader(packed)
    assert reader.counts == [4, 4, 4, 3]
    assert reader.manifest.classes == ["class0", "class1", "class2"]
    originals = {path.read_bytes(): int(path.parent.name[-1]) for path in folder.rglob("*.png")}
    found, keys = {}, []
    for index in range(len(reader)):
        key, members = reader.read(*reader.locate(index))
        keys.append(key)
        found[members["png"]] = int(members["cls"])
    assert found == originals
    assert keys == sorted(set(keys))
    assert not any("." in key for key in keys)
    labels = [int(reader.read(0, row)[1]["cls"]) for row in range(4)]
    assert len(set(labels)) > 1  # shards mix classes


def test_digits_are_sklearns(digits_set: Path) -> None:
    data = load_digits()
    seen = {}
    for name in ("train", "val"):
        dataset = ShardDataset(digits_set / name, ImageTransform(8), channels=1)
        for sample in dataset.samples():
            seen[int(sample["key"].split("_")[1])] = ((sample["image"][0] + 1) * 127.5, sample["labels"])
    assert sorted(seen) == list(range(1797))
    for i, (image, label) in seen.items():
        assert label == data.target[i]
        assert torch.equal(image.round(), torch.from_numpy(np.rint(data.images[i] * 255 / 16)).float())


def test_validation_split_is_stratified(digits_set: Path) -> None:
    train, val = Manifest.load(digits_set / "train"), Manifest.load(digits_set / "val")
    assert train.num_samples + val.num_samples == 1797
    assert train.classes == val.classes == list("0123456789")
    sizes = np.bincount(load_digits().target)
    labels = [s["labels"] for s in ShardDataset(digits_set / "val", ImageTransform(8), channels=1).samples()]
    assert np.bincount(labels).tolist() == [int(size * 0.1 + 0.5) for size in sizes]
    with pytest.raises(UserError, match=r"sub-folders do: use .*train or .*val"):
        Manifest.load(digits_set)


def test_captions(tmp_path: Path) -> None:
    source = tmp_path / "flat"
    source.mkdir()
    for i in range(3):
        picture(i).save(source / f"{i}.jpg")
    (source / "0.txt").write_text("a cat\n", encoding="utf-8")
    (source / "1.txt").write_text("ein Kätzchen", encoding="utf-8")
    report = pack(str(source), str(tmp_path / "out"))
    samples = list(ShardDataset(tmp_path / "out", ImageTransform(8)).samples())
    assert sorted(s["captions"] for s in samples) == ["", "a cat", "ein Kätzchen"]
    assert all("labels" not in s for s in samples)
    assert report.empty_captions == 1


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be used -> the reason each is counted under."""
    good = folder / "good.jpg"
    picture(0, (64, 64)).save(good)
    data = good.read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "tail.jpg").write_bytes(data[:-20])
    (folder / "zero.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>not found</html>")
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(folder / "float.tiff")
    picture(1, (300, 2)).save(folder / "long.png")
    for name, side in (("bomb.png", 20000), ("big.png", 10001)):
        header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\1\0\0IDAT"
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    (folder / "photo.heic").write_bytes(b"x")
    return {
        "cut.jpg": "truncated or corrupt",
        "tail.jpg": "truncated or corrupt",
        "zero.png": "empty file",
        "page.jpg": "not an image",
        "float.tiff": "float or 32-bit pixels",
        "long.png": "longer than 20 to 1",
        "photo.heic": "format not supported",
        "bomb.png": "more than {} pixels",
        "big.png": "more than {} pixels",
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("max_pixels", [10_000, 100_000_000])
def test_unusable_files_are_left_out_by_reason(tmp_path: Path, max_pixels: int) -> None:
    source = tmp_path / "s"
    source.mkdir()
    expected = {name: reason.format(max_pixels) for name, reason in bad_files(source).items()}
    report = pack(str(source), str(tmp_path / "out"), max_pixels=max_pixels)
    listed = {row["name"]: row["reason"] for row in json.loads((tmp_path / "out" / SKIPPED).read_text())}
    assert listed == expected
    assert report.skipped["truncated or corrupt"] == 2
    assert report.sets[str(tmp_path / "out")].num_samples == 1


def test_other_formats_become_png(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    image = picture(3)
    image.save(source / "a.bmp")
    image.save(source / "b.tiff")
    image.convert("P").save(source / "c.gif", save_all=True, append_images=[picture(4).convert("P")])
    image.convert("CMYK").save(source / "d.tif")
    image.save(source / "e.webp", lossless=True)
    manifest = next(iter(pack(str(source), str(tmp_path / "out")).sets.values()))
    assert manifest.formats == {"png": 4, "webp": 1}
    for sample in ShardDataset(tmp_path / "out", ImageTransform(10)).samples():
        assert sample["image"].shape == (3, 10, 10)


def test_an_interrupted_pack_leaves_nothing_that_looks_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, pack_module = tmp_path / "out", sys.modules["ldm.data.pack"]
    prepare, calls = pack_module.prepare, []

    def fail(item, max_pixels, min_side):  # type: ignore[no-untyped-def]
        calls.append(item)
        if len(calls) > 9:
            raise KeyboardInterrupt
        return prepare(item, max_pixels, min_side)

    monkeypatch.setattr(pack_module, "prepare", fail)
    with pytest.raises(KeyboardInterrupt):
        pack(str(folder), str(out), shard_size=2, num_workers=1)
    assert not out.exists()
    # a kill runs no clean-up: the same, with the staging folder left
    monkeypatch.setattr(pack_module.Output, "__exit__", lambda self, *_: None)
    with pytest.raises(KeyboardInterrupt):
        pack(str(folder), str(out), shard_size=2, num_workers=1)
    assert list(out.iterdir())
    with pytest.raises(UserError, match="incomplete"):
        Manifest.load(out)
    with pytest.raises(UserError, match="incomplete"):
        ShardReader(out)
    monkeypatch.undo()
    pack(str(folder), str(out), shard_size=2)  # needs no flag
    assert verify(out).num_samples == 15
    assert not list(out.rglob("*.part"))
    assert not (out / ".packing").exists()


def test_an_existing_set_is_replaced_only_by_force_and_only_when_the_new_one_is_whole(
    folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="--force"):
        pack(str(folder), str(packed))
    before = contents(packed)
    empty = tmp_path / "bad"
    empty.mkdir()
    (empty / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="can be read"):
        pack(str(empty), str(packed), force=True)
    assert contents(packed) == before
    pack("digits", str(packed), force=True, val_fraction=0.5)
    assert sorted(path.name for path in packed.iterdir()) == ["train", "val"]
    pack(str(folder), str(packed), force=True)
    assert verify(packed).num_samples == 15


def test_an_output_is_never_taken_from_anything_else(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        pack(str(folder), str(home), force=True)
    for out in (folder, folder / "class0", folder.parent):
        with pytest.raises(UserError, match=r"overlaps|other files"):
            pack(str(folder), str(out), force=True)
    tars = tmp_path / "tars"
    tars.mkdir()
    (tars / "shard-000000.tar").write_bytes(b"from elsewhere")
    with pytest.raises(UserError, match="--force"):
        pack(str(folder), str(tars))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "was not found.*digits.*torchvision:"),
        (lambda p: p.mkdir(), "is empty"),
        (lambda p: (p.mkdir(), (p / "notes.md").write_text("x")), "holds no image"),
        (lambda p: (class_folders(p), (p / "class9").mkdir()), "class9 holds no image"),
        (
            lambda p: (class_folders(p), (p / "bad").mkdir(), (p / "bad/a.png").write_bytes(b"")),
            "bad holds no readable",
        ),
        (lambda p: (class_folders(p), picture(0).save(p / "x.png")), "beside folders"),
        (lambda p: (class_folders(p / "train"), class_folders(p / "val")), "splits"),
        (lambda p: p.write_text("x"), "is a file"),
    ],
)
def test_sources_that_cannot_be_packed(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "source")
    with pytest.raises(UserError, match=words):
        pack(str(tmp_path / "source"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "digits", classes=2, each=2)
    assert next(iter(pack("digits", "out").sets.values())).num_samples == 4


def test_torchvision_sets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets as datasets

    class CIFAR10:
        classes = ("cat", "dog")

        def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
            if root == "offline":
                raise RuntimeError("Error downloading")
            self.targets = [0, 1, 1] if train else [0]

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return picture(index), self.targets[index]

    monkeypatch.setattr(datasets, "CIFAR10", CIFAR10)
    manifest = next(iter(pack("torchvision:CIFAR10", str(tmp_path / "out"), split="train").sets.values()))
    assert (manifest.classes, manifest.num_samples) == (["cat", "dog"], 3)
    with pytest.raises(UserError, match="Error downloading"):
        pack("torchvision:CIFAR10", str(tmp_path / "b"), root="offline")
    with pytest.raises(UserError, match="no data set 'CIFAR11'"):
        pack("torchvision:CIFAR11", str(tmp_path / "b"))


def test_tars_are_plain(packed: Path) -> None:
    with tarfile.open(packed / "shard-000000.tar") as tar:
        members = tar.getmembers()
    assert all((m.mtime, m.uid, m.gid, m.uname) == (0, 0, 0, "") for m in members)
