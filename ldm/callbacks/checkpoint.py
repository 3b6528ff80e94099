"""When to save: every so many steps, every so many minutes, and at the end."""

import time
from pathlib import Path
from typing import IO, Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from ldm import checkpoints
from ldm.errors import UserError


class SaveCheckpoints(Checkpoint):
    """Saves the run folder's checkpoints at step boundaries and keeps the newest ones; one process trains in a folder.

    Args:
        every_n_steps: optimizer steps between two checkpoints; null: none by steps.
        every_n_minutes: minutes between two checkpoints, whichever comes first; null: none by time.
        keep: number of checkpoints that stay on disk, at least 1.
        keep_every_n_steps: checkpoints at multiples of this step stay for ever; null: none.
    """

    def __init__(
        self,
        every_n_steps: int | None = 5000,
        every_n_minutes: float | None = 30.0,
        keep: int = 2,
        keep_every_n_steps: int | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"checkpoint.keep is {keep}: at least 1 checkpoint has to stay.")
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep = keep
        self.keep_every_n_steps = keep_every_n_steps
        self.saved_step = self.seen_step = 0
        self.saved_at = time.monotonic()
        self.boundary: dict[str, Any] = {}
        self.lock: IO[bytes] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        refusal = None
        if trainer.is_global_zero:
            try:
                self.lock = checkpoints.occupy(Path(trainer.default_root_dir))
            except UserError as error:
                refusal = str(error)
        refusal = trainer.strategy.broadcast(refusal)
        if refusal:  # on every rank, so that none waits for the others
            raise UserError(refusal)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.lock is not None:
            self.lock.close()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.boundary = {"epoch": checkpoint["epoch"], "fit_loop": checkpoint["loops"]["fit_loop"]}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_step = self.seen_step = trainer.global_step
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        straighten(trainer)
        self.boundary = {"epoch": trainer.current_epoch, "fit_loop": trainer.fit_loop.state_dict()}
        if step == self.seen_step:  # a batch that was only accumulated; a checkpoint would lose its gradients
            return
        self.seen_step = step
        # The end of the fit saves once more, with what is only known then (latent statistics).
        if step == self.saved_step or step == trainer.max_steps:
            return
        if (self.every_n_steps and step % self.every_n_steps == 0) or self.time_is_up(trainer):
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # When the fit ends Lightning has counted the epoch it stopped in as done, and would resume inside the next.
        # So every checkpoint tells of the end of its last batch.
        if self.boundary:
            checkpoint["epoch"] = self.boundary["epoch"]
            checkpoint["loops"]["fit_loop"] = self.boundary["fit_loop"]

    def time_is_up(self, trainer: L.Trainer) -> bool:
        # Saving is collective and clocks differ, so rank zero decides; asking it costs a little, so not at each step.
        if self.every_n_minutes is None or trainer.global_step % 20:
            return False
        due = time.monotonic() - self.saved_at > 60 * self.every_n_minutes
        return bool(trainer.strategy.broadcast(due))

    def save(self, trainer: L.Trainer) -> None:
        run = Path(trainer.default_root_dir)
        path = run / checkpoints.CHECKPOINTS / f"step-{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path)
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
        if trainer.is_global_zero:
            checkpoints.rotate(run, path, self.keep, self.keep_every_n_steps)


def straighten(trainer: L.Trainer) -> None:
    """Count the running epoch as begun. Lightning forgets to when it resumes from the last batch of an epoch, and a
    second such resume would then train one epoch more than `max_epochs`."""
    progress = trainer.fit_loop.epoch_progress
    for count in (progress.total, progress.current):
        count.ready = count.started = count.processed + 1  # type: ignore[attr-defined]
