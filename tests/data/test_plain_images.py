"""The images that latent statistics come from: each once over all ranks, the same every time."""

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ldm.data import ShardData

STORED = 60  # images in the set


def rank_data(shards: str, rank: int = 0, world: int = 1, **options: Any) -> ShardData:
    """What one of several ranks reads from."""
    settings = {"batch_size": 12, "size": 8, "channels": 1, "num_workers": 0, **options}
    data = ShardData(shards, **settings)
    if world > 1:
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
    return data


def shares(shards: str, count: int, world: int, **options: Any) -> list[list[bytes]]:
    """The images that each rank is given."""
    ranks = [rank_data(shards, rank, world, **options) for rank in range(world)]
    return [as_bytes(rank, count) for rank in ranks]


def as_bytes(data: ShardData, count: int) -> list[bytes]:
    return [image.numpy().tobytes() for batch in data.plain_images(count) for image in batch]


@pytest.mark.parametrize("count", [1, 7, 59, STORED, 50_000])
@pytest.mark.parametrize("world", [2, 3, 7])
def test_any_number_of_ranks_reads_what_one_reads_each_image_once(few_digits: Path, count: int, world: int) -> None:
    folder = str(few_digits / "train")
    (one,), several = shares(folder, count, 1), shares(folder, count, world)
    assert len(one) == min(count, STORED)
    assert sum(map(len, several)) == len(one)
    assert Counter(image for share in several for image in share) == Counter(one)
    assert max(map(len, several)) - min(map(len, several)) <= 1


def test_a_smaller_number_is_spread_over_the_set(few_digits: Path) -> None:
    """Every third image is read where a third is asked for, so that every class and shard has its part."""
    folder = str(few_digits / "train")
    (everything,), (some,) = shares(folder, STORED, 1), shares(folder, STORED // 3, 1)
    assert some == everything[::3]


@pytest.fixture
def streamed(few_digits: Path, tmp_path: Path) -> str:
    """The same shards without their manifest."""
    for shard in (few_digits / "train").glob("*.tar"):
        shutil.copy(shard, tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("consumed", [0, 12, 36])
def test_a_stream_gives_as_many_wherever_training_stopped(streamed: str, world: int, consumed: int) -> None:
    """Its epoch of 24 images is less than what is asked for, and half of it may be trained on already."""
    fresh = shares(streamed, 30, world, samples_per_epoch=24)
    assert sum(map(len, fresh)) == 36  # whole batches of 12
    if world == 1:
        trained = rank_data(streamed, samples_per_epoch=24)
        trained._consumed = consumed
        assert as_bytes(trained, 30) == fresh[0]
