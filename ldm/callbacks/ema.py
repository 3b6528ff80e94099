"""Moving averages of the trained weights."""

from collections.abc import Sequence
from typing import Any

import lightning as L

from ldm.nn.ema import WeightAverage
from ldm.tasks import Task


class EMA(L.Callback):
    """Keeps float32 moving averages of the trained network, one for each decay, updated once an optimizer step.

    They live in `task.averages` and, by the task's doing, under the key "ema" of the checkpoint; the weights under
    "state_dict" are always the trained ones. Whoever wants an average in the network asks `task.averaged()` for the
    time of a block.

    Args:
        decays: decays of the averages; validation, sampling and export use the first.
        warmup: use min(decay, (1 + n) / (10 + n)) in the n-th update, so that early averages are not noise.
    """

    def __init__(self, decays: Sequence[float] = (0.9999,), warmup: bool = True) -> None:
        self.decays = list(decays)
        self.warmup = warmup
        self.seen_steps = 0

    def setup(self, trainer: L.Trainer, pl_module: Task, stage: str) -> None:
        parameters = pl_module.averaged_parameters()
        pl_module.averages = {str(decay): WeightAverage(parameters, decay, self.warmup) for decay in self.decays}

    def on_fit_start(self, trainer: L.Trainer, pl_module: Task) -> None:
        self.start_from_the_weights(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Task) -> None:
        self.start_from_the_weights(pl_module)

    def start_from_the_weights(self, task: Task) -> None:
        """Until its first update an average is the weights, which may have been loaded and broadcast since setup."""
        for average in task.averages.values():
            if average.num_updates == 0:
                average.restart(task.averaged_parameters())

    def on_train_start(self, trainer: L.Trainer, pl_module: Task) -> None:
        self.seen_steps = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Task, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.seen_steps:  # a batch that was only accumulated
            return
        self.seen_steps = trainer.global_step
        for average in pl_module.averages.values():
            average.update(pl_module.averaged_parameters())
