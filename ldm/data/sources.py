"""Where images come from before they are packed: class folders, a flat folder, torchvision, an embedded set."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.data.embedded import EMBEDDED, digits, png
from ldm.errors import UserError

READABLE = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Taken for images too, so that they are listed as skipped and not passed over in silence.
UNREADABLE = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".svg", ".exr", ".hdr", ".raw", ".dng")
SPLITS = {"train", "training", "val", "valid", "validation", "test"}
TORCHVISION = "torchvision:"
COMMON = "CIFAR10, CIFAR100, MNIST, FashionMNIST, SVHN, STL10, Flowers102, Food101, OxfordIIITPet, Imagenette"


@dataclass(frozen=True)
class Item:
    """One candidate: its name (a relative path), how to read its bytes, and what is known of it."""

    name: str
    read: Callable[[], bytes]
    label: int | None = None
    caption: Callable[[], bytes] | None = None


@dataclass
class Source:
    """Candidates in sorted order; `classes` is None where there are no labels."""

    name: str
    items: list[Item]
    classes: list[str] | None


def open_source(source: str, root: str = "data", split: str = "train") -> Source:
    """Find what `source` names; an existing path wins over a name.

    Raises:
        UserError: nothing by that name (with what is possible), or nothing in it to pack.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.exists():
        raise UserError(f"{source} is a file: give the folder that holds the images")
    if source in EMBEDDED:
        images, labels, classes = digits()
        items = [Item(f"{i:05d}", _constant(data), y) for i, (data, y) in enumerate(zip(images, labels, strict=True))]
        return Source(source, items, classes)
    if source.startswith(TORCHVISION):
        return _torchvision(source.removeprefix(TORCHVISION), root, split)
    raise UserError(
        f"{source!r} was not found: there is no such folder, and it is no data set's name. Possible: a folder of "
        f"images, an embedded set ({', '.join(EMBEDDED)}), or {TORCHVISION}NAME ({COMMON}, ...)"
    )


def _constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__MACOSX"))


def _folder(folder: Path) -> Source:
    entries = [path for path in folder.iterdir() if not _hidden(path)]
    folders = sorted((path for path in entries if path.is_dir()), key=lambda path: path.name)
    flat = _images(folder, [path for path in entries if path.is_file()], None)
    if not entries:
        raise UserError(f"{folder} is empty: give a folder of images")
    if not flat and folders and {path.name.lower() for path in folders} <= SPLITS:
        names = " and ".join(path.name for path in folders)
        raise UserError(f"{folder} holds splits ({names}), not classes: pack {folders[0]} by itself, and so each split")
    classes = [(path, _walk(path)) for path in folders]
    if flat and any(files for _, files in classes):
        raise UserError(
            f"{folder} holds images ({flat[0].name}, ...) beside folders of images ({folders[0].name}, ...): "
            "put every image into a class folder, or all into one flat folder"
        )
    if flat:
        return Source(str(folder), flat, None)
    items: list[Item] = []
    for label, (path, files) in enumerate(classes):
        found = _images(folder, files, label)
        if not found and any(files for _, files in classes):
            raise UserError(f"class folder {path} holds no image: fill it, or take it away")
        items += found
    if not items:
        raise UserError(f"{folder} holds no image ({', '.join(READABLE)}): give a folder of images")
    return Source(str(folder), items, [path.name for path in folders])


def _walk(folder: Path) -> list[Path]:
    hidden = {path for path in folder.rglob("*") if _hidden(path)}
    files = (path for path in folder.rglob("*") if path.is_file() and hidden.isdisjoint({path, *path.parents}))
    return [path for path in files if path.suffix.lower() in READABLE + UNREADABLE]


def _images(root: Path, files: list[Path], label: int | None) -> list[Item]:
    items = []
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        if path.suffix.lower() in READABLE + UNREADABLE:
            text = path.with_suffix(".txt")
            caption = text.read_bytes if text.is_file() else None
            items.append(Item(path.relative_to(root).as_posix(), path.read_bytes, label, caption))
    return items


def _torchvision(name: str, root: str, split: str) -> Source:
    import torchvision.datasets as datasets

    maker = getattr(datasets, name, None) if name in datasets.__all__ else None
    if maker is None:
        raise UserError(f"torchvision has no data set {name!r}; among its sets are {COMMON}")
    known = inspect.signature(maker).parameters
    options: dict[str, Any] = {"root": root, "download": True, "split": split, "train": split == "train"}
    if "train" in known and split not in ("train", "test"):
        raise UserError(f"split is {split!r}; {name} has 'train' and 'test'")
    try:
        dataset = maker(**{key: value for key, value in options.items() if key in known})
        labels = _labels(dataset)
    except (OSError, RuntimeError, ValueError, TypeError, ImportError) as error:
        raise UserError(
            f"torchvision's {name} could not be prepared in {root} ({error}): see its documentation"
        ) from error
    classes = _class_names(dataset, labels) if labels is not None else None
    reads = [_torchvision_read(dataset, i) for i in range(len(dataset))]
    names = [f"{i:07d}" for i in range(len(dataset))]
    items = [Item(n, read, labels[i] if labels else None) for i, (n, read) in enumerate(zip(names, reads, strict=True))]
    return Source(f"{TORCHVISION}{name}", items, classes)


def _torchvision_read(dataset: Any, index: int) -> Callable[[], bytes]:
    return lambda: png(dataset[index][0])


def _labels(dataset: Any) -> list[int] | None:
    """Integer labels by one of the names that torchvision's sets use, else by going through the set; None if none."""
    for name in ("targets", "labels", "_labels"):
        values = getattr(dataset, name, None)
        if values is not None and len(values) == len(dataset):
            break
    else:
        values = [dataset[i][1] for i in range(len(dataset))]
    try:
        labels = [int(value) for value in values]
    except (TypeError, ValueError):
        return None
    return labels if min(labels, default=-1) >= 0 else None


def _class_names(dataset: Any, labels: list[int]) -> list[str]:
    names = getattr(dataset, "classes", None)
    if names is not None and len(names) > max(labels):
        return [name if isinstance(name, str) else ", ".join(map(str, name)) for name in names]
    return [str(label) for label in range(max(labels) + 1)]
