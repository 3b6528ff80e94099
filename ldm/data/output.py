"""The folder that a pack writes: built in OUT/.packing, moved into place at the end, manifests last."""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ldm.atomic import fsync_folder, write_bytes
from ldm.data.manifest import MANIFEST, PACKING, Manifest
from ldm.errors import UserError

SKIPPED = "skipped.json"
OURS = re.compile(r"shard-\d+\.tar(\.idx\.json)?|manifest\.json|skipped\.json|.*\.part")


@dataclass(frozen=True)
class Skip:
    """A file that was left out."""

    name: str
    reason: str
    detail: str


class Output:
    """A context manager: an exception leaves OUT as it was; a kill leaves OUT/.packing, which readers call incomplete
    and the next pack clears away. Staging inside OUT keeps every move a rename, even where OUT is a mount point.

    Raises:
        UserError: OUT is a file, holds a set and `force` is off, holds anything else, or overlaps a source.
    """

    def __init__(self, out: str | Path, force: bool, sources: Iterable[str] = ()) -> None:
        self.out = Path(out).expanduser()
        self.staging = self.out / PACKING
        for source in sources:
            inner, outer = self.out.resolve(), Path(source).expanduser().resolve()
            if inner == outer or outer in inner.parents or inner in outer.parents:
                raise UserError(f"output {out} overlaps the source {source}: choose a folder elsewhere")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"output {out} is a file: choose another name")
        self.old = sorted(path for path in self.out.iterdir() if path.name != PACKING) if self.out.is_dir() else []
        foreign = next((path for path in self.old if not _ours(path)), None)
        if foreign is not None:
            raise UserError(f"output {out} holds other files ({foreign.name}): choose an empty or a new folder")
        complete = any((self.out / name / MANIFEST).is_file() for name in ("", "train", "val"))
        unfinished = self.staging.exists() and not complete
        if self.old and not unfinished and not force:
            raise UserError(f"output {out} already holds a set: add --force to replace it, or choose another folder")
        self.existed = self.out.is_dir()
        self._moving = False

    def __enter__(self) -> Self:
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)
        return self

    def folder(self, name: str) -> Path:
        """Where to write the set that will be OUT/`name`."""
        folder = self.staging / name
        folder.mkdir(exist_ok=True)
        return folder

    def commit(self, manifests: dict[str, Manifest], skips: list[Skip]) -> None:
        """Replace what was there by what was staged. Between the two, no manifest stands in OUT."""
        if skips:
            rows = [asdict(skip) for skip in sorted(skips, key=lambda skip: skip.name)]
            write_bytes(self.staging / SKIPPED, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())
        self._moving = True
        for name in ("", "train", "val"):
            (self.out / name / MANIFEST).unlink(missing_ok=True)
        for path in self.old:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for path in sorted(self.staging.iterdir()):
            path.rename(self.out / path.name)
        fsync_folder(self.out)
        for name, manifest in manifests.items():
            manifest.save(self.out / name)
        self.staging.rmdir()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self._moving:  # a set that was half moved stays marked as incomplete
            return
        shutil.rmtree(self.staging, ignore_errors=True)
        if not self.existed and not any(self.out.iterdir()):
            self.out.rmdir()


def _ours(path: Path) -> bool:
    if path.is_dir():
        return path.name in ("train", "val") and all(_ours(inner) and inner.is_file() for inner in path.iterdir())
    return OURS.fullmatch(path.name) is not None
