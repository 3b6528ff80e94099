"""Shards without a manifest, remote or local, read from front to back through the webdataset library."""

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from braceexpand import braceexpand
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset import filters, tariterators
from webdataset.gopen import gopen_curl

from ldm.data import annotations
from ldm.data.dataset import Fault, Sample, collate, seen
from ldm.data.decode import parse_caption, parse_label
from ldm.data.index import MEMBERS, split_name
from ldm.data.loader import ignore_stop_signals, rank_batch
from ldm.data.order import shuffled
from ldm.data.transform import ImageTransform
from ldm.errors import UserError
from ldm.pictures import BadImage
from ldm.seeding import seeded_generator

MAX_BAD = 100  # samples or shards that one stream may leave out before it stops the run
BUFFER = 1000  # samples that are shuffled together


def expand(shards: str) -> list[str]:
    """A folder of tars, a path or URL, or a brace pattern of them, to the list of shards, in order.

    Raises:
        UserError: no shard, a missing one, or a scheme other than http, https and file.
    """
    folder = Path(shards).expanduser()
    if folder.is_dir():
        found = sorted(str(path) for path in folder.glob("*.tar"))
        if not found:
            raise UserError(f"{shards} holds neither a manifest nor a .tar: make a set with `ldm pack SOURCE OUT`")
        return found
    try:
        urls = [shards] if folder.exists() else list(braceexpand(shards))
    except ValueError as error:
        raise UserError(
            f"shards {shards!r} is no brace pattern ({error}): write such as shard-{{000..099}}.tar"
        ) from error
    for url in urls:
        path = _local(url)
        if path is not None and not path.is_file():
            raise UserError(f"shard {url} does not exist: correct the path or the pattern {shards!r}")
    return urls


def _local(url: str) -> Path | None:
    """The path of a local shard, None for one that is fetched; `pipe:` and the like would run commands."""
    if Path(url).exists():
        return Path(url)
    scheme, colon, _ = url.partition(":")
    if scheme in ("http", "https"):
        return None
    if scheme == "file":
        return Path(unquote(urlsplit(url).path))
    if colon and "/" not in scheme:
        raise UserError(f"shard {url}: scheme {scheme!r} is not read; possible are http, https, file and local paths")
    return Path(url).expanduser()


def _read_shards(urls: Iterator[str], on_bad: Callable[[str], None]) -> Iterator[Sample]:
    """Raw samples {"__key__", "__url__", extension: bytes}; a shard that fails is reported and left."""
    for url in urls:
        count = 0
        try:
            path = _local(url)
            stream = path.open("rb") if path is not None else gopen_curl(url)
            with stream:
                files = tariterators.tar_file_expander(
                    [{"url": url, "stream": stream}], select_files=lambda name: split_name(name)[1] in MEMBERS
                )
                for sample in tariterators.group_by_keys(files, keys=split_name):
                    count += 1
                    yield sample
            if count == 0:
                on_bad(f"shard {url} holds no sample")
        except UserError:
            raise
        except Exception as error:  # webdataset passes on whatever tarfile, curl and the operating system raise
            on_bad(f"shard {url} failed after {count} samples ({error})")


@dataclass
class StreamDataset(IterableDataset):
    """An endless stream for one rank and, inside a loader, one worker.

    Each pass deals the shards, permuted by (seed, epoch, start, pass), to world x workers streams. Where there are
    fewer shards than streams, every stream reads all of them and keeps its share of the samples. Either way no sample
    comes twice in a pass.

    Args:
        start: the batch of the epoch that it begins with: a resumed stream is dealt anew.
    """

    urls: list[str]
    transform: ImageTransform
    channels: int = 3
    num_classes: int | None = None
    seed: int = 0
    epoch: int = 0
    start: int = 0
    rank: int = 0
    world: int = 1
    shuffle_buffer: int = BUFFER
    max_bad: int = MAX_BAD

    def __iter__(self) -> Iterator[Sample | Fault]:
        try:
            yield from self._samples()
        except UserError as error:
            while True:  # a stream that ended would be waited for
                yield Fault(str(error))

    def _samples(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        streams, stream = self.world * workers, self.rank * workers + worker_id
        self._bad = 0
        raw = self._share(streams, stream)
        word = np.random.SeedSequence((self.seed, self.epoch, self.start, stream)).generate_state(1)[0]
        if self.shuffle_buffer > 1:
            raw = filters._shuffle(
                raw, self.shuffle_buffer, self.shuffle_buffer // 10 + 1, rng=random.Random(int(word))
            )
        for number, members in enumerate(raw):
            where = f"sample {members['__key__']!r} in shard {members['__url__']}"
            try:
                generator = seeded_generator("stream", self.seed, self.epoch, self.start, stream, number)
                yield self._decode(members, where, generator)
            except BadImage as error:
                self._count_bad(f"{where}: {error}")

    def _share(self, streams: int, stream: int) -> Iterator[Sample]:
        by_shard = len(self.urls) >= streams
        for number in range(1 << 62):
            order = shuffled(len(self.urls), self.seed, self.epoch, self.start, number)
            mine = order[stream::streams] if by_shard else order
            samples = _read_shards((self.urls[i] for i in mine), self._count_bad)
            for place, sample in enumerate(samples):
                if by_shard or place % streams == stream:
                    yield sample

    def _count_bad(self, what: str) -> None:
        self._bad += 1
        if self._bad > self.max_bad:
            raise UserError(f"more than {self.max_bad} samples or shards could not be used; the last: {what}")
        warnings.warn(f"left out ({self._bad} so far in this stream): {what}", stacklevel=2)

    def _decode(self, members: Sample, where: str, generator: torch.Generator) -> Sample:
        try:
            fields = annotations.parse_fields(members.get("json", b"{}"))
        except ValueError as error:
            raise BadImage("json cannot be used", str(error)) from None
        sample = annotations.entries(fields) | {"keys": members["__key__"], "shards": members["__url__"]}
        sample |= seen(members, self.transform, self.channels, generator)
        if self.num_classes is not None:
            if "cls" not in members:
                raise BadImage("no label", "num_classes is set, so each sample needs a .cls")
            sample["labels"] = parse_label(members["cls"], self.num_classes, where)
        caption = annotations.caption_of(fields, generator)
        if caption is None and "txt" in members:
            caption = parse_caption(members["txt"], where)
        return sample if caption is None else sample | {"captions": caption}


class StreamLoader:
    """Like `ShardLoader`, over a stream: equal batches on every rank, but resuming deals the shards anew, so that
    samples of the interrupted epoch may come again. "positions" count as in `ShardLoader`; which sample stands at
    one is not a function of it.

    Args:
        samples_per_epoch: what is called an epoch; less than batch_size is refused.
        batch_size: global.
    """

    def __init__(
        self,
        dataset: StreamDataset,
        samples_per_epoch: int,
        batch_size: int,
        num_workers: int = 0,
        consumed: int = 0,
    ) -> None:
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers
        self.rank_batch = rank_batch(batch_size, dataset.world)
        self.batches, self.consumed = samples_per_epoch // batch_size, consumed
        if self.batches < 1:
            raise UserError(f"samples_per_epoch {samples_per_epoch} is less than batch_size {batch_size}: raise it")

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, start = divmod(self.consumed // self.batch_size, self.batches)
        loader = DataLoader(
            replace(self.dataset, epoch=epoch, start=start),
            batch_size=self.rank_batch,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),
        )
        for place, batch in zip(range(start, self.batches), loader, strict=False):
            if isinstance(batch, Fault):
                raise UserError(batch.message)
            number = epoch * self.batches + place
            first = number * self.batch_size + self.dataset.rank * self.rank_batch
            batch["positions"] = torch.arange(first, first + self.rank_batch)
            self.consumed = (number + 1) * self.batch_size
            batch["step"] = number
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Empty: see `ShardLoader.state_dict`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
