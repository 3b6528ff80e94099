"""Batches of a packed set, resumable by one integer."""

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from ldm.data.dataset import Fault, ShardDataset, collate
from ldm.errors import UserError


def ignore_stop_signals(_: int) -> None:
    """For loader workers: on TERM or USR1 the trainer finishes its step and saves, which needs its workers alive."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def rank_batch(batch_size: int, world: int) -> int:
    """This rank's share of the global batch.

    Raises:
        UserError: the world does not divide it.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: it must be at least 1")
    if batch_size % world:
        raise UserError(
            f"batch_size {batch_size} (of the whole run, over all devices) cannot be shared by {world} processes: "
            f"take a multiple of {world}, or another number of devices"
        )
    return batch_size // world


class ShardLoader:
    """Iterable of batch dicts. No DataLoader subclass, so that Lightning puts no sampler of its own into it.

    Global batch g holds positions g*B .. g*B + B - 1, of which rank r takes the r-th contiguous part: the ranks'
    batches one after the other are the batch of a single process. For a shuffled order (training) iterating starts at
    `consumed` and runs to the end of that epoch; for the stored order (validation) it always runs through once, the
    last batch being partial and, only up to a multiple of `world`, filled by repeating its last position.

    `consumed`, the loader's whole state, counts the global samples handed out. It counts a batch as soon as that is
    handed out, because a loop that knows the length never asks past an epoch's last batch; a loop that must not lose
    the batch in hand counts its completed steps itself, as `ShardData` does.

    Args:
        batch_size: B, global.
        limit: batches per pass where it is fewer than the epoch's (Lightning's limit_train_batches); the next pass
            goes on where the last one stopped.

    Raises:
        UserError: `world` does not divide B; fewer training samples than B; from iterating, what a sample is wrong in.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        consumed: int = 0,
        limit: int | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.rank, self.world = dataset, batch_size, rank, world
        self.rank_batch = rank_batch(batch_size, world)
        self.num_workers, self.consumed = num_workers, consumed
        self.training = dataset.order.shuffle
        if self.training and len(dataset) < batch_size:
            raise UserError(
                f"{dataset.reader.folder} holds {len(dataset)} samples, fewer than batch_size {batch_size}: "
                f"set batch_size to {len(dataset)} or less"
            )
        self.batches = -(-dataset.order.epoch_length // batch_size)
        self.window = min(limit, self.batches) if limit else self.batches

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        return self.batches

    def rows(self, batch: int) -> list[int]:
        """This rank's positions in global batch `batch`."""
        first = batch * self.batch_size
        if self.training:
            first += self.rank * self.rank_batch
            return list(range(first, first + self.rank_batch))
        last = min(first + self.batch_size, self.dataset.order.epoch_length)
        share = -(-(last - first) // self.world)
        mine = range(first + self.rank * share, first + (self.rank + 1) * share)
        return [min(position, last - 1) for position in mine]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator: nothing happens, and `consumed` is not read, before the first batch is asked for. Lightning
        # calls iter() once to see whether it can.
        first = self.consumed // self.batch_size if self.training else 0
        stop = (first // self.window + 1) * self.window if self.training else self.batches
        if self.training:
            self.dataset.order.locate(first * self.batch_size)  # forked workers inherit the epoch's permutation
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=[self.rows(batch) for batch in range(first, stop)],
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # else it draws its base seed from the global generator
        )
        for batch, samples in zip(range(first, stop), loader, strict=True):
            if isinstance(samples, Fault):
                raise UserError(samples.message)
            if self.training:
                self.consumed = (batch + 1) * self.batch_size
            yield samples | {"step": batch}

    def state_dict(self) -> dict[str, Any]:
        """Empty: the data module saves the state. Lightning looks for these two to see that resuming is exact."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do: see `state_dict`."""
