import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_pictures import picture

from ldm.data import (
    ImageTransform,
    LatentContract,
    Manifest,
    Order,
    ShardDataset,
    ShardLoader,
    ShardReader,
    ShardWriter,
    permutation,
    to_npy,
)
from ldm.data.embedded import png
from ldm.errors import UserError


def training(folder: Path, batch_size: int = 4, seed: int = 0, **options: Any) -> ShardLoader:
    order = Order(ShardReader(folder).counts, batch_size, seed)
    return ShardLoader(ShardDataset(folder, ImageTransform(8), order=order, augment=True), batch_size, **options)


def epochs(loader: ShardLoader, count: int) -> list[dict[str, Any]]:
    return [batch for _ in range(count) for batch in loader]


def assert_same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    assert [b["keys"] for b in left] == [b["keys"] for b in right]
    for a, b in zip(left, right, strict=True):
        for name in ("images", "labels", "positions"):
            assert torch.equal(a[name], b[name])


def test_every_epoch_is_another_permutation() -> None:
    counts = [7, 1, 30, 0, 5, 12, 9]
    orders = [permutation(counts, seed, epoch, block=3) for seed in (0, 1) for epoch in (0, 1, 2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(64))
    assert len({order.tobytes() for order in orders}) == 6
    assert np.array_equal(orders[1], permutation(counts, 0, 1, block=3))


def test_the_order_stays_what_it_was() -> None:
    """A change of these numbers would break the resuming of every run there is."""
    assert permutation([5, 5], seed=3, epoch=2).tolist() == [5, 1, 4, 6, 8, 9, 3, 0, 7, 2]


def test_samples_are_shuffled_inside_blocks_of_shards() -> None:
    order = permutation([10] * 64, seed=0, epoch=0)
    for part in order.reshape(2, 320):
        assert len({index // 10 for index in part.tolist()}) == 32


def test_an_epoch_is_whole_batches_and_cuts_other_samples_each_time(packed: Path) -> None:
    loader = training(packed)
    assert len(loader) == 3
    missing = []
    for _ in range(4):
        keys = [key for batch in loader for key in batch["keys"]]
        assert len(set(keys)) == 12
        missing.append(frozenset(keys))
    assert len(set(missing)) > 1
    assert loader.consumed == 48


def test_batches_hold_what_the_seams_say(packed: Path) -> None:
    batch = next(iter(training(packed)))
    assert batch["images"].shape == (4, 3, 8, 8)
    assert batch["images"].dtype == torch.float32
    assert batch["labels"].dtype == batch["positions"].dtype == torch.int64
    assert batch["positions"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_stop_and_resume_is_exact(packed: Path, workers: int, stop: int) -> None:
    whole = epochs(training(packed), 3)
    first = training(packed, num_workers=workers)
    seen = []
    while len(seen) < stop:
        for batch in first:
            seen.append(batch)
            if len(seen) == stop:
                break
    assert first.consumed == 4 * stop
    second = training(packed, num_workers=2 - workers, consumed=first.consumed)
    while len(seen) < 9:
        seen += list(second)
    assert_same(seen, whole)


def test_the_global_generator_is_neither_used_nor_moved(packed: Path) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(training(packed, num_workers=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batch_of_one_process(packed: Path, world: int) -> None:
    whole = epochs(training(packed), 2)
    ranks = [epochs(training(packed, rank=rank, world=world), 2) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert [key for part in parts for key in part["keys"]] == batch["keys"]
        assert torch.equal(torch.cat([part["images"] for part in parts]), batch["images"])


def test_a_limited_pass_goes_on_where_the_last_one_stopped(packed: Path) -> None:
    loader = training(packed, limit=2)
    assert len(loader) == 3
    passes = [[batch["positions"][0].item() for batch in loader] for _ in range(3)]
    assert passes == [[0, 4], [8, 12], [16, 20]]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_validation_is_the_stored_order_filled_only_to_the_world(packed: Path, world: int) -> None:
    dataset = ShardDataset(packed, ImageTransform(8))
    stored = [sample["key"] for sample in dataset.samples()]
    loaders = [ShardLoader(dataset, 8, rank, world) for rank in range(world)]
    ranks = [list(loader) for loader in loaders]
    assert {len(rank) for rank in ranks} == {2}
    keys = [key for step in range(2) for rank in ranks for key in rank[step]["keys"]]
    filled = -(-15 // world) * world if world > 1 else 15
    assert keys == stored + stored[-1:] * (filled - 15)
    assert loaders[0].consumed == 0
    assert [b["keys"] for b in loaders[0]] == [b["keys"] for b in ranks[0]]


def test_what_cannot_be_batched_is_refused(packed: Path) -> None:
    with pytest.raises(UserError, match=r"batch_size 4 .* 3 processes"):
        training(packed, world=3)
    with pytest.raises(UserError, match="15 samples, fewer than batch_size 16"):
        training(packed, batch_size=16)


def write_set(folder: Path, samples: list[dict[str, bytes | str]], **options: Any) -> Path:
    folder.mkdir()
    with ShardWriter(folder / "shard-000000.tar") as writer:
        for i, members in enumerate(samples):
            writer.add(f"k{i}", members)
    assert writer.info is not None
    Manifest(**{"kind": "images", "shards": [writer.info], **options}).save(folder)
    return folder


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("label", ["3", "-1", "cat", "", "1_0"])
def test_a_bad_label_stops_with_one_sentence(tmp_path: Path, workers: int, label: str) -> None:
    image = png(picture(0))
    folder = write_set(
        tmp_path / "s",
        [{"png": image, "cls": "2"}, {"png": image, "cls": label}],
        classes=["a", "b", "c"],
        has_labels=True,
    )
    loader = ShardLoader(ShardDataset(folder, ImageTransform(8)), 2, num_workers=workers)
    with pytest.raises(UserError, match=r"^sample 'k1' in shard .*shard-000000\.tar: label") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "broken", [{"cls": "0"}, {"png": b"", "cls": "0"}, {"png": b"<html>", "cls": "0"}, {"png": b"x"}]
)
def test_a_broken_sample_is_named(tmp_path: Path, broken: dict[str, bytes | str]) -> None:
    folder = write_set(tmp_path / "s", [broken], classes=["a"], has_labels=True)
    with pytest.raises(UserError, match=r"sample 'k0' in shard .*shard-000000\.tar"):
        list(ShardLoader(ShardDataset(folder, ImageTransform(8)), 1))


def latent_set(folder: Path, count: int = 8) -> tuple[Path, np.ndarray]:
    arrays = np.random.default_rng(0).normal(size=(count, 2, 4, 3, 5)).astype(np.float32)
    samples: list[dict[str, bytes | str]] = [
        {"latent.npy": to_npy(f"k{i}", array, "float32"), "cls": str(i % 2)} for i, array in enumerate(arrays)
    ]
    contract = LatentContract("ab", {"size": 32}, [2, 3, 5], "float32", [0.0] * 2, [1.0] * 2, count)
    return write_set(folder, samples, kind="latents", latents=contract, classes=["a", "b"], has_labels=True), arrays


def test_latents_are_the_images_or_the_mirrors_as_the_position_says(tmp_path: Path) -> None:
    folder, arrays = latent_set(tmp_path / "latents")
    order = Order([8], batch_size=4)
    mirrored = 0
    for batch in epochs(ShardLoader(ShardDataset(folder, order=order, augment=True), 4), 4):
        assert batch["moments"].shape == (4, 4, 3, 5)
        for key, position, moments in zip(batch["keys"], batch["positions"], batch["moments"], strict=True):
            both = arrays[int(key[1:])]
            view = int(np.array_equal(moments.numpy(), both[1]))
            assert np.array_equal(moments.numpy(), both[view])
            again = ShardDataset(folder, order=order, augment=True).load(int(position))
            assert torch.equal(again["moments"], moments)
            mirrored += view
    assert 4 < mirrored < 28
    plain = epochs(ShardLoader(ShardDataset(folder, order=order, augment=True, flip=False), 4), 2)
    for batch in plain:
        images = np.stack([arrays[int(key[1:])][0] for key in batch["keys"]])
        assert np.array_equal(batch["moments"].numpy(), images)


def test_reading_straight_through_is_stored_order_with_both_views(tmp_path: Path) -> None:
    folder, arrays = latent_set(tmp_path / "latents")
    samples = list(ShardDataset(folder).samples(0))
    assert [sample["key"] for sample in samples] == [f"k{i}" for i in range(8)]
    assert np.array_equal(np.stack([sample["latent"].numpy() for sample in samples]), arrays)
    assert samples[1]["members"] == {"cls": b"1"}


def test_open_shards_are_bounded(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldm.data.reader.OPEN_SHARDS", 2)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    reader = ShardReader(packed)
    for shard in (0, 1, 2, 3, 0):
        reader.read(shard, 0)
    assert len(reader._open) == 2
    reader.close()
    assert not before or len(os.listdir("/proc/self/fd")) == before
