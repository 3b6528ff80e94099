"""Writing tars that are the same bytes for the same samples, and that are never half there."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Self

from ldm.atomic import file_sha256, fsync_folder
from ldm.data.index import MEMBERS, index_path, is_member, load_index, save_index
from ldm.data.manifest import ShardInfo
from ldm.errors import UserError


class _HashingFile:
    """A file that hashes what is written to it; tarfile only ever appends."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.size


class ShardWriter:
    """One shard, as a context manager: it exists under its name only once it is complete and on the disk.

        with ShardWriter(folder / "shard-000000.tar") as writer:
            writer.add("0000_cat", {"png": data, "cls": b"3", "txt": "a cat"})
        writer.info  # the ShardInfo for the manifest

    An exception inside removes what was written. A kill leaves `NAME.part`, which no reader takes for a shard.

    Args:
        path: the shard.
        comment: what the head of the tar is to say of it (a pax header that other readers pass over).
    """

    def __init__(self, path: str | Path, comment: str | None = None) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.samples: dict[str, dict[str, list[int]]] = {}
        self.info: ShardInfo | None = None
        self._out = _HashingFile(self.part)
        head = None if comment is None else {"comment": comment}
        self._tar = tarfile.TarFile(fileobj=self._out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=head)  # type: ignore[arg-type]

    @property
    def num_bytes(self) -> int:
        """Bytes so far."""
        return self._out.size

    def add(self, key: str, members: dict[str, bytes | str]) -> None:
        """Append one sample; text is written as UTF-8.

        Raises:
            UserError: a key with a dot, or twice, or not printable; no member; a member that no reader would read.
        """
        base = key.rpartition("/")[2]
        if not base or "." in key or not key.isprintable() or key.startswith("/"):
            raise UserError(f"shard {self.path}: key {key!r} must be printable, relative and hold no dot: rename it")
        if key in self.samples:
            raise UserError(f"shard {self.path}: key {key!r} comes twice: keys must be unique")
        unknown = sorted(name for name in members if not is_member(name))
        if unknown or not members:
            raise UserError(f"shard {self.path}: key {key!r} has members {unknown}; possible are {', '.join(MEMBERS)}")
        extents = {}
        for extension in sorted(members):
            value = members[extension]
            data = value.encode() if isinstance(value, str) else value
            extents[extension] = [self._append(f"{key}.{extension}", data), len(data)]
        self.samples[key] = extents

    def _append(self, name: str, data: bytes) -> int:
        member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, owners empty
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))
        blocks = -(-len(data) // tarfile.BLOCKSIZE)
        return self._out.size - blocks * tarfile.BLOCKSIZE

    def close(self) -> ShardInfo:
        """Finish: end of archive, fsync, rename, index."""
        self._tar.close()
        self._out.file.flush()
        os.fsync(self._out.file.fileno())
        self._out.file.close()
        index_path(self.path).unlink(missing_ok=True)  # of an older shard by this name
        os.replace(self.part, self.path)
        fsync_folder(self.path.parent)
        sha256 = self._out.hash.hexdigest()
        save_index(self.path, self.samples, self._out.size, sha256)
        self.info = ShardInfo(self.path.name, self._out.size, sha256, len(self.samples))
        return self.info

    def abort(self) -> None:
        """Throw away what was written."""
        self._out.file.close()
        self.part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def shard_info(path: Path) -> ShardInfo:
    """What the manifest says of a finished shard, from its index file where that is fresh, else from the tar.

    Raises:
        OSError: there is no such shard.
        UserError: it cannot be read.
    """
    samples = len(load_index(path))
    recorded = json.loads(index_path(path).read_text(encoding="utf-8"))["sha256"]
    sha256 = recorded or file_sha256(path)
    return ShardInfo(path.name, path.stat().st_size, sha256, samples)
