"""Which sample stands at which position: a pure function of (seed, epoch, the shards' sample counts)."""

from collections.abc import Sequence

import numpy as np

BLOCK = 32  # shards that are shuffled together: wide enough to mix, narrow enough for the page cache


def shuffled(count: int, *seeds: int) -> np.ndarray:
    """A permutation of 0..count-1 (int64).

    Sorting raw words of a bit generator, since numpy promises its bit streams across versions, but not its
    `permutation`.
    """
    words = np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def permutation(counts: Sequence[int], seed: int, epoch: int, block: int = BLOCK) -> np.ndarray:
    """The order of one epoch: int64 sample indices (stored order is 0..N-1), each exactly once.

    The shards are permuted, then samples are shuffled inside blocks of `block` shards.

    Args:
        counts: samples per shard.
        seed: any integer >= 0.
    """
    starts = np.concatenate([[0], np.cumsum(counts)])
    shards = shuffled(len(counts), seed, epoch, 0)
    blocks = []
    for first in range(0, len(shards), block):
        chosen = shards[first : first + block]
        indices = np.concatenate([np.arange(starts[s], starts[s + 1], dtype=np.int64) for s in chosen])
        blocks.append(indices[shuffled(len(indices), seed, epoch, 1, first)])
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int64)


class Order:
    """Positions to samples.

    A position counts samples over the whole run: epoch = position // epoch_length. A training epoch is cut to whole
    batches, and since each epoch has its own permutation, it cuts other samples. Without shuffling the order is the
    stored one and nothing is cut.

    Args:
        counts: samples per shard.
        batch_size: the global batch.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, seed: int = 0, shuffle: bool = True) -> None:
        self.counts, self.seed, self.shuffle = list(counts), seed, shuffle
        total = sum(counts)
        self.epoch_length = total // batch_size * batch_size if shuffle else total
        self._epoch = -1
        self._indices = np.empty(0, dtype=np.int64)

    def locate(self, position: int) -> tuple[int, int]:
        """position -> (epoch, sample index)."""
        epoch, place = divmod(position, self.epoch_length)
        if not self.shuffle:
            return epoch, place
        if epoch != self._epoch:
            self._indices, self._epoch = permutation(self.counts, self.seed, epoch), epoch
        return epoch, int(self._indices[place])
