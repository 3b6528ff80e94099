import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ldm.data import LatentContract, Manifest, ShardReader, ShardWriter, from_npy, load_index, to_npy, verify
from ldm.data.index import index_path
from ldm.data.verify import check_shards
from ldm.errors import UserError


def write(path: Path, count: int = 3) -> ShardWriter:
    with ShardWriter(path) as writer:
        for i in range(count):
            writer.add(f"k{i}", {"png": bytes([i]) * (500 * i + 1), "cls": str(i), "txt": f"größe {i}"})
    return writer


def test_writer_and_index_agree_with_tarfile(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    info = write(shard).info
    assert info is not None
    assert (info.bytes, info.samples) == (shard.stat().st_size, 3)
    written = index_path(shard).read_bytes()
    index_path(shard).unlink()
    index = load_index(shard, 3, info.sha256)  # from the tar alone
    assert index_path(shard).read_bytes() == written
    data = shard.read_bytes()
    with tarfile.open(shard) as tar:
        for row, key in enumerate(index.keys):
            for extension, (offset, size) in index.members(row).items():
                file = tar.extractfile(f"{key}.{extension}")
                assert file is not None
                assert file.read() == data[offset : offset + size]


def test_a_stale_or_broken_index_is_rebuilt(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    write(shard)
    good = load_index(shard)
    path = index_path(shard)
    content = json.loads(path.read_text())
    for broken in ("", "[]", json.dumps(content | {"bytes": 1}), json.dumps(content | {"sha256": "other"})):
        path.write_text(broken)
        assert load_index(shard, 3, "hash").keys == good.keys
    with pytest.raises(UserError, match=r"a\.tar holds 3 samples, but its manifest says 4"):
        load_index(shard, 4)


def test_an_exception_leaves_no_shard(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a.tar")
    writer.add("k", {"txt": "x"})
    writer.__exit__(RuntimeError, RuntimeError(), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "members"),
    [
        ("a.b", {"txt": "x"}),
        ("", {"txt": "x"}),
        ("k0", {"txt": "x"}),
        ("n", {}),
        ("n", {"pkl": b"x"}),
        ("/a", {"txt": ""}),
    ],
)
def test_samples_that_no_reader_could_tell_apart_are_refused(tmp_path: Path, key: str, members: dict) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.add("k0", {"txt": "x"})
        with pytest.raises(UserError, match="key"):
            writer.add(key, members)


def test_foreign_tars(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_text("<html>" * 500)
    with pytest.raises(UserError, match=r"page\.tar is no tar"):
        load_index(tmp_path / "page.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name in ("a/x.JPG", "a/x.cls", "evil.pkl", "a/y.jpg", "a/x.txt"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match="'a/x' comes twice"):
        load_index(tmp_path / "b.tar")


def test_reader_survives_pickling_and_names_a_cut_shard(packed: Path) -> None:
    reader = ShardReader(packed)
    first = reader.read(0, 0)
    assert pickle.loads(pickle.dumps(reader)).read(0, 0) == first
    assert [reader.locate(i) for i in (0, 3, 4, 14)] == [(0, 0), (0, 3), (1, 0), (3, 2)]
    shard = packed / "shard-000001.tar"
    data = shard.read_bytes()
    reader.read(1, 0)
    shard.write_bytes(data[:600])
    with pytest.raises(UserError, match=r"shard-000001\.tar ends before"):
        reader.read(1, 3)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar cannot be read"):
        ShardReader(packed).read(1, 0)


def test_manifest_round_trip_and_what_it_refuses(packed: Path) -> None:
    manifest = Manifest.load(packed)
    manifest.save(packed)
    assert Manifest.load(packed) == manifest
    path = packed / "manifest.json"
    content = json.loads(path.read_text())
    bad = [{**content, "version": 99}, {**content, "kind": "sounds"}, {**content, "num_samples": 3}, [], {}]
    bad.append({**content, "shards": [{**content["shards"][0], "name": "../up.tar"}]})
    bad.append({**content, "kind": "latents"})
    for broken in bad:
        path.write_text(json.dumps(broken))
        with pytest.raises(UserError, match=r"manifest\.json"):
            Manifest.load(packed)


def test_damage_is_named(packed: Path) -> None:
    manifest, shard = Manifest.load(packed), packed / "shard-000002.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    check_shards(packed, manifest)
    with pytest.raises(UserError, match=r"shard-000002\.tar differs"):
        verify(packed)
    shard.write_bytes(data[:-512])
    with pytest.raises(UserError, match=r"shard-000002\.tar has \d+ bytes, but its manifest says"):
        check_shards(packed, manifest)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-000002\.tar is missing"):
        check_shards(packed, manifest)


CONTRACT = LatentContract("ab", {"size": 16, "crop": "center", "channels": 3}, [2, 4, 4], "float16", [0, 0], [1, 1], 9)


def test_latents_round_trip() -> None:
    array = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    assert np.array_equal(from_npy(to_npy("k", array), "w", CONTRACT), array.astype(np.float16).astype(np.float32))
    assert np.array_equal(from_npy(to_npy("k", array, "float32"), "w"), array)


@pytest.mark.parametrize("value", [np.nan, np.inf, 65536.0, -1e6])
def test_latents_that_half_precision_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(UserError, match="'key7'"):
        to_npy("key7", np.array([0.0, value]))


def test_latents_that_break_the_contract_are_refused() -> None:
    good = np.zeros((2, 4, 4, 4), dtype=np.float32)
    nan = np.full_like(good, np.nan).astype(np.float16)
    bad = [to_npy("k", good, "float32"), to_npy("k", good[:, :2]), b"", b"\x93NUMPY", to_npy("k", good)[:-9]]
    bad.append(to_npy("k", good)[: -nan.nbytes] + nan.tobytes())
    for data in bad:
        with pytest.raises(UserError, match="sample 'a' in shard b"):
            from_npy(data, "sample 'a' in shard b", CONTRACT)
    pickled = pickle.dumps(np.array([1.0]))
    with pytest.raises(UserError, match="cannot be read"):
        from_npy(pickled, "w")
