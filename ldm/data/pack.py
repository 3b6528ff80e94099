"""Images to shards: every file decoded once, every refusal counted, and no half set that looks whole."""

import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ldm.data.annotations import CAPTIONS, caption_of, known_fields, to_json
from ldm.data.index import MAP
from ldm.data.manifest import Manifest
from ldm.data.order import shuffled
from ldm.data.output import Output, Skip
from ldm.data.prepare import Prepared, prepare
from ldm.data.shards import ShardWriter
from ldm.data.sources import Item, Source, open_source
from ldm.errors import UserError
from ldm.pictures import MAX_PIXELS, PIL_MAX_PIXELS, BadImage


@dataclass
class PackReport:
    """What was packed.

    Attributes:
        out: the folder given.
        sets: folder of each set (OUT, or OUT/train and OUT/val) -> its manifest.
        skipped: reason -> how many files were left out.
        empty_captions: images without a caption in a set that has captions; theirs is empty.
        seconds: wall time.
    """

    out: str
    sets: dict[str, Manifest] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    empty_captions: int = 0
    seconds: float = 0.0


def pack(
    source: str,
    out: str,
    shard_size: int = 4096,
    shard_bytes: int = 1_000_000_000,
    val_fraction: float = 0.0,
    seed: int = 0,
    force: bool = False,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 1,
    root: str = "data",
    split: str = "train",
    num_workers: int = 4,
    num_images: int | None = None,
) -> PackReport:
    """Turn images into WebDataset shards with a manifest.

    The same input gives the same bytes. Each image is decoded once; what cannot be used is left out, counted by
    reason and listed in OUT/skipped.json. Files that are JPEG, PNG or WebP are kept byte for byte, others become PNG.

    Args:
        source: a folder with one sub-folder per class, or a flat folder; beside NAME.jpg there may be NAME.txt (its
            caption), NAME.json (further fields, or several captions) and NAME.map.png (classes of its pixels, or
            another picture over it). Or the name of an embedded set: digits, photos (tiles of two photographs), or
            shapes (drawn, with captions); or torchvision:NAME, such as torchvision:CIFAR10.
        out: the folder to write. With a val_fraction it holds two sets, OUT/train and OUT/val.
        shard_size: the most samples in one shard.
        shard_bytes: a shard that has reached so many bytes is closed.
        val_fraction: share of each class (at least 0, below 1) that goes to OUT/val.
        seed: of the order in which samples are dealt to shards and to the validation set.
        force: replace a set that OUT already holds, once the new one is complete.
        max_pixels: leave out images with more pixels (width x height), by their header, before decoding.
        min_side: leave out images whose shorter side has fewer pixels.
        root: where torchvision keeps its downloads.
        split: which split of a torchvision set to pack, such as train or test; of photos and shapes, train or
            heldout.
        num_workers: threads that read and check.
        num_images: how many scenes of shapes to pack; 20,000 if left out. Other sources have a number of their own.

    Returns:
        The report that is also printed.

    Raises:
        UserError: source not found or without a usable image, a class without one, an output that is in the way.
    """
    _check_options(shard_size, shard_bytes, val_fraction, max_pixels, num_workers)
    start = time.monotonic()
    output = Output(out, force, [source] if Path(source).is_dir() else [])
    found = open_source(source, root, split, num_images)
    splits = _splits(found, val_fraction, seed)
    packer = _Packer(found, shard_size, shard_bytes, max_pixels, min_side, num_workers)
    report = PackReport(out)
    with output, _progress() as progress:
        task = progress.add_task("packing", total=len(found.items))
        for name, places in splits.items():
            manifest = packer.write(output.folder(name), places, progress, task)
            report.sets[str(Path(out) / name)] = manifest
        packer.check(report.sets)
        output.commit({name: report.sets[str(Path(out) / name)] for name in splits}, packer.skips)
    report.skipped = dict(Counter(skip.reason for skip in packer.skips).most_common())
    report.empty_captions = packer.empty_captions
    report.seconds = time.monotonic() - start
    _print(report)
    return report


def _check_options(shard_size: int, shard_bytes: int, val_fraction: float, max_pixels: int, num_workers: int) -> None:
    if shard_size < 1 or shard_bytes < 1 or num_workers < 1:
        raise UserError("shard_size, shard_bytes and num_workers must each be at least 1")
    if not 0.0 <= val_fraction < 1.0:
        raise UserError(f"val_fraction is {val_fraction}: it must be at least 0 and below 1, such as 0.05")
    if not 1 <= max_pixels <= PIL_MAX_PIXELS:
        raise UserError(f"max_pixels is {max_pixels}: it must be between 1 and {PIL_MAX_PIXELS}")


def _splits(source: Source, val_fraction: float, seed: int) -> dict[str, list[tuple[int, int]]]:
    """{sub-folder: [(place, item number)]}; the place in the shuffled whole makes the key."""
    places = list(enumerate(shuffled(len(source.items), seed).tolist()))
    if val_fraction == 0.0:
        return {"": places}
    sizes = Counter(item.label for item in source.items)
    quota = {label: int(size * val_fraction + 0.5) for label, size in sizes.items()}
    train: list[tuple[int, int]] = []
    val: list[tuple[int, int]] = []
    for place, number in places:
        label = source.items[number].label
        chosen = val if quota[label] > 0 else train
        quota[label] -= 1
        chosen.append((place, number))
    if not train or not val:
        empty = "training" if not train else "validation"
        raise UserError(f"val_fraction {val_fraction} of {len(places)} images leaves the {empty} set empty: change it")
    return {"train": train, "val": val}


class _Packer:
    """Reads ahead in threads, writes in order."""

    def __init__(
        self, source: Source, shard_size: int, shard_bytes: int, max_pixels: int, min_side: int, num_workers: int
    ) -> None:
        self.source, self.shard_size, self.shard_bytes = source, shard_size, shard_bytes
        self.max_pixels, self.min_side, self.num_workers = max_pixels, min_side, num_workers
        self.has_captions = any(item.caption for item in source.items)
        self.skips: list[Skip] = []
        self.packed: Counter[int | None] = Counter()
        self.empty_captions = 0

    def write(self, folder: Path, places: list[tuple[int, int]], progress: Progress, task: TaskID) -> Manifest:
        manifest = Manifest("images", [], self.source.classes)
        manifest.has_labels, manifest.has_captions = self.source.classes is not None, self.has_captions
        known: Counter[str] = Counter()
        writer: ShardWriter | None = None
        try:
            for place, item, prepared in self._prepared(places):
                progress.advance(task)
                if isinstance(prepared, BadImage):
                    self.skips.append(Skip(item.name, prepared.reason, prepared.detail))
                    continue
                if writer is None:
                    writer = ShardWriter(folder / f"shard-{len(manifest.shards):06d}.tar")
                writer.add(key_of(place, item.name), self._members(item, prepared))
                _count(manifest, prepared)
                known.update(known_entries(prepared))
                if len(writer.samples) >= self.shard_size or writer.num_bytes >= self.shard_bytes:
                    manifest.shards.append(writer.close())
                    writer = None
            if writer is not None:
                manifest.shards.append(writer.close())
        except BaseException:
            if writer is not None:
                writer.abort()
            raise
        manifest.fields = sorted(name for name, count in known.items() if count == manifest.num_samples)
        return manifest

    def _prepared(self, places: list[tuple[int, int]]) -> Iterator[tuple[int, Item, Prepared | BadImage]]:
        waiting: deque[tuple[int, Item, Future[Prepared | BadImage]]] = deque()
        with ThreadPoolExecutor(self.num_workers) as pool:
            try:
                for place, number in places:
                    item = self.source.items[number]
                    waiting.append((place, item, pool.submit(prepare, item, self.max_pixels, self.min_side)))
                    if len(waiting) > 4 * self.num_workers:
                        place, item, future = waiting.popleft()
                        yield place, item, future.result()
                while waiting:
                    place, item, future = waiting.popleft()
                    yield place, item, future.result()
            finally:
                for _, _, future in waiting:
                    future.cancel()

    def _members(self, item: Item, prepared: Prepared) -> dict[str, bytes | str]:
        members: dict[str, bytes | str] = {prepared.extension: prepared.data}
        self.packed[item.label] += 1
        if item.label is not None:
            members["cls"] = str(item.label)
        if self.has_captions:
            members["txt"] = prepared.caption or caption_of(prepared.fields or {}) or ""
            self.empty_captions += not members["txt"]
        if prepared.fields is not None:
            members["json"] = to_json(prepared.fields)
        if prepared.map is not None:
            members[MAP] = prepared.map
        return members

    def check(self, sets: dict[str, Manifest]) -> None:
        """Raises UserError where a set, or a class that had candidates, came out without an image."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(s.reason for s in self.skips).items())
        for folder, manifest in sets.items():
            if not manifest.shards:
                raise UserError(
                    f"no image of {self.source.name} for {folder} can be read ({reasons}): look at its files"
                )
        wanted = {item.label for item in self.source.items}
        empty = sorted(label for label in wanted if label is not None and not self.packed[label])
        if empty and self.source.classes:
            names = ", ".join(self.source.classes[label] for label in empty)
            raise UserError(
                f"{self.source.name}: class folder {names} holds no readable image ({reasons}): "
                "repair it, or take it away"
            )


def key_of(place: int, name: str) -> str:
    """A unique, ascending, dot-free ASCII key that still tells the file: `00000012_cat-tom_v2`."""
    stem = name.rpartition(".")[0] or name
    return f"{place:08d}_{re.sub(r'[^A-Za-z0-9_]+', '-', stem).strip('-')[-60:]}"


def known_entries(prepared: Prepared) -> set[str]:
    """Entries that a sample gives besides those that the manifest says by name."""
    return known_fields(prepared.fields or {}) | ({"maps"} if prepared.map is not None else set())


def _count(manifest: Manifest, prepared: Prepared) -> None:
    manifest.formats[prepared.extension] = manifest.formats.get(prepared.extension, 0) + 1
    manifest.modes[prepared.mode] = manifest.modes.get(prepared.mode, 0) + 1
    sizes = manifest.sizes
    for side, length in zip(("width", "height"), prepared.size, strict=True):
        sizes[f"min_{side}"] = min(sizes.get(f"min_{side}", length), length)
        sizes[f"max_{side}"] = max(sizes.get(f"max_{side}", length), length)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0.0:.0f} images/s")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _print(report: PackReport) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for folder, manifest in report.sets.items():
        size = sum(shard.bytes for shard in manifest.shards) / 1e6
        classes = f", {len(manifest.classes)} classes" if manifest.classes else ""
        captions = ", with captions" if manifest.has_captions or CAPTIONS in manifest.fields else ""
        fields = ", ".join(name for name in manifest.fields if name != CAPTIONS)
        counts = f"{manifest.num_samples} images in {len(manifest.shards)} shards, {size:.1f} MB"
        console.print(f"{folder}: {counts}{classes}{captions}" + (f", each with {fields}" if fields else ""))
    if report.empty_captions:
        console.print(f"{report.empty_captions} images have no caption; theirs is empty")
    for reason, count in report.skipped.items():
        console.print(f"left out: {count} {reason}")
    if report.skipped:
        console.print(f"the files left out are listed in {Path(report.out) / 'skipped.json'}")
    console.print(f"packed in {report.seconds:.1f} s")
