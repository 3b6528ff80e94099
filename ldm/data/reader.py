"""Raw members of a packed set, each by one positioned read."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.index import ShardIndex, load_index
from ldm.data.manifest import Manifest
from ldm.errors import UserError

OPEN_SHARDS = 64  # open files and indexes kept: two blocks of the training order


class ShardReader:
    """Samples of a folder of shards by their index in stored order.

    It may be forked and pickled: positioned reads share no file position, and a pickle carries no open file.

    Raises:
        UserError: no usable manifest.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        self.counts = [shard.samples for shard in self.manifest.shards]
        self.starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self._open: OrderedDict[int, tuple[int, ShardIndex]] = OrderedDict()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """sample index -> (shard number, row in that shard)."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return shard, index - int(self.starts[shard])

    def name(self, shard: int) -> str:
        return str(self.folder / self.manifest.shards[shard].name)

    def read(self, shard: int, row: int) -> tuple[str, dict[str, bytes]]:
        """(key, {extension: bytes}) of one sample.

        Raises:
            UserError: naming the shard, where it has gone, is cut short, or holds other samples than its manifest.
        """
        try:
            handle, index = self._shard(shard)
            members = {
                extension: _read_exactly(handle, offset, size, self.name(shard))
                for extension, (offset, size) in index.members(row).items()
            }
        except OSError as error:
            raise UserError(f"shard {self.name(shard)} cannot be read ({error.strerror}): copy it back") from error
        return index.keys[row], members

    def _shard(self, shard: int) -> tuple[int, ShardIndex]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        info = self.manifest.shards[shard]
        index = load_index(self.folder / info.name, info.samples, info.sha256)
        if len(self._open) >= OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[shard] = (os.open(self.folder / info.name, os.O_RDONLY), index)
        return self._open[shard]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1][0])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def _read_exactly(handle: int, offset: int, size: int, name: str) -> bytes:
    data = os.pread(handle, size, offset)
    while len(data) < size:  # one read returns at most 2 GiB
        more = os.pread(handle, size - len(data), offset + len(data))
        if not more:
            raise UserError(f"shard {name} ends before byte {offset + size}: copy it again")
        data += more
    return data
