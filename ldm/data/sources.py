"""Where images come from before they are packed: class folders, a flat folder, torchvision, an embedded set."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.data.annotations import Fields, parse_fields
from ldm.data.embedded import EMBEDDED, PHOTO_SPLITS, digits, photos, png
from ldm.data.shapes import SPLITS as SHAPES_SPLITS
from ldm.data.shapes import Scene, draw, scene, weighted_captions
from ldm.errors import UserError
from ldm.pictures import BadImage

READABLE = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Taken for images too, so that they are listed as skipped and not passed over in silence.
UNREADABLE = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".svg", ".exr", ".hdr", ".raw", ".dng")
MAP = ".map.png"  # what lies pixel by pixel over the image of the same name
SPLITS = {"train", "training", "val", "valid", "validation", "test"}
TORCHVISION = "torchvision:"
SHAPES_IMAGES = 20_000  # how many of the endless set are packed unless the user says
COMMON = "CIFAR10, CIFAR100, MNIST, FashionMNIST, SVHN, STL10, Flowers102, Food101, OxfordIIITPet, Imagenette"


@dataclass(frozen=True)
class Item:
    """One candidate: its name (a relative path), how to read its bytes, and what is known of it.

    `annotations` gives what becomes the sample's json member (ValueError: it cannot be used), `map` the bytes of the
    picture that lies over the image.
    """

    name: str
    read: Callable[[], bytes]
    label: int | None = None
    caption: Callable[[], bytes] | None = None
    annotations: Callable[[], Fields] | None = None
    map: Callable[[], bytes] | None = None


@dataclass
class Source:
    """Candidates in sorted order; `classes` is None where there are no labels."""

    name: str
    items: list[Item]
    classes: list[str] | None


def open_source(source: str, root: str = "data", split: str = "train", num_images: int | None = None) -> Source:
    """Find what `source` names; an existing path wins over a name.

    Raises:
        UserError: nothing by that name (with what is possible), nothing in it to pack, or a num_images that is not
            the user's to choose.
    """
    path = Path(source).expanduser()
    if num_images is not None and (path.exists() or source != "shapes"):
        raise UserError(f"num_images is {num_images}, but {source} holds as many images as it holds: leave it out")
    if path.is_dir():
        return _folder(path)
    if path.exists():
        raise UserError(f"{source} is a file: give the folder that holds the images")
    if source == "shapes":
        return _shapes(split, SHAPES_IMAGES if num_images is None else num_images)
    if source == "digits":
        return _digits()
    if source == "photos":
        return _photos(split)
    if source.startswith(TORCHVISION):
        return _torchvision(source.removeprefix(TORCHVISION), root, split)
    raise UserError(
        f"{source!r} was not found: there is no such folder, and it is no data set's name. Possible: a folder of "
        f"images, an embedded set ({', '.join(EMBEDDED)}), or {TORCHVISION}NAME ({COMMON}, ...)"
    )


def _digits() -> Source:
    images, labels, classes = digits()
    items = [Item(f"{i:05d}", _constant(data), y) for i, (data, y) in enumerate(zip(images, labels, strict=True))]
    return Source("digits", items, classes)


def _shapes(split: str, num_images: int) -> Source:
    if split not in SHAPES_SPLITS:
        raise UserError(f"split is {split!r}; shapes has {' and '.join(map(repr, SHAPES_SPLITS))}")
    if num_images < 1:
        raise UserError(f"num_images is {num_images}: it must be at least 1")
    return Source("shapes", [_shapes_item(i, split) for i in range(num_images)], None)


def _shapes_item(index: int, split: str) -> Item:
    """Nothing is drawn before it is read."""
    return Item(
        f"{index:07d}",
        read=lambda: png(draw(scene(index, split))),
        caption=lambda: weighted_captions(scene(index, split))[0][0].encode(),
        annotations=lambda: _shapes_annotations(scene(index, split)),
    )


def _shapes_annotations(drawn: Scene) -> dict[str, Any]:
    said = weighted_captions(drawn)
    return {
        "captions": [text for text, _ in said],
        "caption_weights": [weight for _, weight in said],
        "objects": [[thing.shape, thing.colour, thing.size, thing.place] for thing in drawn.things],
    }


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
    """The images among files, in the order of their names, each with what stands beside it."""
    found = [path for path in files if path.suffix.lower() in READABLE + UNREADABLE]
    maps = {path for path in found if path.name.endswith(MAP)}
    images = {path.with_suffix("") for path in found if path not in maps}
    items = []
    for path in sorted(found, key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if path not in maps:
            items.append(_beside(path, name, label, maps))
        elif path.with_name(path.name.removesuffix(MAP)) not in images:
            items.append(Item(name, _alone, label))
    return items


def _beside(path: Path, name: str, label: int | None, maps: set[Path]) -> Item:
    text, fields, values = (path.with_suffix(suffix) for suffix in (".txt", ".json", MAP))
    return Item(
        name,
        path.read_bytes,
        label,
        caption=text.read_bytes if text.is_file() else None,
        annotations=(lambda: parse_fields(fields.read_bytes())) if fields.is_file() else None,
        map=values.read_bytes if values in maps else None,
    )


def _alone() -> bytes:
    raise BadImage("map without its image")


def _photos(split: str) -> Source:
    if split not in PHOTO_SPLITS:
        raise UserError(f"split is {split!r}; photos has {' and '.join(map(repr, PHOTO_SPLITS))}")
    images, labels, classes, names = photos(split)
    items = [Item(name, _constant(data), y) for data, y, name in zip(images, labels, names, strict=True)]
    return Source("photos", items, classes)


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
