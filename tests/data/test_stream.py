import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from data_pictures import picture

from ldm.data import ImageTransform, ShardData, ShardWriter, StreamDataset, StreamLoader
from ldm.data.embedded import png
from ldm.data.stream import expand
from ldm.errors import UserError


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """5 shards of 4 samples and no manifest, in a folder whose name URLs would stumble over."""
    folder = tmp_path / "tars #1;a?b"
    folder.mkdir()
    for shard in range(5):
        with ShardWriter(folder / f"s{shard}.tar") as writer:
            for i in range(4):
                label = 4 * shard + i
                writer.add(f"k{label:02d}", {"png": png(picture(label)), "cls": str(label), "txt": f"image {label}"})
    return folder


def loader(urls: list[str], batch_size: int = 4, workers: int = 0, consumed: int = 0, **options: Any) -> StreamLoader:
    dataset = StreamDataset(urls, ImageTransform(8), num_classes=20, **options)
    return StreamLoader(dataset, 20, batch_size, workers, consumed)


def keys(batches: Any) -> list[str]:
    return [key for batch in batches for key in batch["keys"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_endless_seeded_and_counts_positions(tars: Path, workers: int) -> None:
    urls = expand(str(tars))
    stream = loader(urls, workers=workers)
    assert len(stream) == 5
    passes = [list(stream) for _ in range(2)]
    assert [len(batches) for batches in passes] == [5, 5]
    assert torch.cat([b["positions"] for p in passes for b in p]).tolist() == list(range(40))
    assert keys(passes[0]) != keys(passes[1])
    assert keys(loader(urls, workers=workers)) == keys(passes[0])
    assert keys(loader(urls, workers=workers, seed=1)) != keys(passes[0])
    batch = passes[0][0]
    assert batch["images"].shape == (4, 3, 8, 8)
    assert [f"k{label:02d}" for label in batch["labels"].tolist()] == batch["keys"]
    assert batch["captions"] == [f"image {label}" for label in batch["labels"].tolist()]


@pytest.mark.parametrize("world", [2, 10])
def test_ranks_share_a_pass_without_overlap(tars: Path, world: int) -> None:
    """With at least as many shards as ranks by shards, with fewer by samples; the batches are equal either way."""
    urls = expand(str(tars))
    shares = []
    for rank in range(world):
        dataset = StreamDataset(urls, ImageTransform(8), rank=rank, world=world, shuffle_buffer=1)
        batches = list(StreamLoader(dataset, 20, 10))
        assert [len(batch["keys"]) for batch in batches] == [10 // world] * 2
        by_samples = world > len(urls)
        shares.append(keys(batches) if by_samples else [s["keys"] for s in islice(dataset, 8)])
    flat = [key for share in shares for key in share]
    assert len(set(flat)) == len(flat)


def test_a_resumed_stream_is_dealt_anew(tars: Path) -> None:
    urls = expand(str(tars))
    resumed = loader(urls, consumed=8)
    batches = list(resumed)
    assert [b["positions"][0].item() for b in batches] == [8, 12, 16]
    assert resumed.consumed == 20


def test_patterns_urls_and_schemes(tars: Path) -> None:
    assert len(expand(str(tars))) == 5
    assert expand(str(tars / "s{1..3}.tar")) == [str(tars / f"s{i}.tar") for i in (1, 2, 3)]
    assert expand("https://host/s{00..02}.tar") == [f"https://host/s0{i}.tar" for i in range(3)]
    for bad in ("pipe:touch hacked", "s3://bucket/a.tar", "gs://b/{0..1}.tar"):
        with pytest.raises(UserError, match="possible are http, https, file"):
            expand(bad)
    with pytest.raises(UserError, match="does not exist"):
        expand(str(tars / "s{4..5}.tar"))


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    import io

    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_bad_samples_are_left_out_up_to_a_bound_and_nothing_is_unpickled(tars: Path) -> None:
    shard = tars / "s0.tar"
    with tarfile.open(shard, "w") as tar:
        add(tar, "good.png", png(picture(0)))
        add(tar, "good.cls", b"1")
        add(tar, "good.pkl", b"cos\nsystem\n(S'false'\ntR.")
        add(tar, "page.jpg", b"<html>")
        add(tar, "half.cls", b"1")
    with pytest.warns(UserWarning, match="left out"):
        assert set(keys(loader([str(shard)]))) == {"good"}
    with pytest.raises(UserError, match="more than 3 samples or shards"):
        list(loader([str(shard)], max_bad=3, workers=1))
    shard.write_bytes(b"<html>" * 1000)
    with pytest.raises(UserError, match=r"more than 3 .*s0\.tar"), pytest.warns(UserWarning, match="left out"):
        list(loader([str(shard)], max_bad=3))


def test_a_bad_label_is_never_left_out_in_silence(tars: Path) -> None:
    for label in (b"20", b"-1", b"cat"):
        with tarfile.open(tars / "s0.tar", "w") as tar:
            add(tar, "a.png", png(picture(0)))
            add(tar, "a.cls", label)
        with pytest.raises(UserError, match=r"sample 'a' in shard .*s0\.tar: label"):
            list(loader([str(tars / "s0.tar")], workers=1))


@pytest.mark.skipif(which("curl") is None, reason="webdataset reads http with curl")
def test_http(tars: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tars)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        urls = expand(f"http://127.0.0.1:{server.server_port}/s{{0..4}}.tar")
        assert len(set(keys(loader(urls)))) > 10
    finally:
        server.shutdown()
        server.server_close()


def test_the_module_streams_folders_without_a_manifest(tars: Path) -> None:
    module = ShardData(str(tars), batch_size=4, size=8, num_workers=0, num_classes=20, samples_per_epoch=16)
    module.setup()
    assert module.manifest is None
    assert module.contract is None
    assert len(list(module.train_dataloader())) == 4
    with pytest.raises(UserError, match="samples_per_epoch"):
        ShardData(str(tars), size=8).setup()
    with pytest.raises(UserError, match="possible are http"):
        ShardData("pipe:cat x", size=8, samples_per_epoch=100).setup()
