"""The training loss, told apart by noise level."""

from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from ldm.tasks import DiffusionTask


class NoiseLevelLoss(L.Callback):
    """Logs the mean training loss by noise level, over the samples of the last interval and of all ranks.

    The bins are equal as samplers space their steps: in t, or on the EDM path in t^(1/rho).

    Args:
        bins: number of bins between t = 0 (data) and t = 1 (noise).
        every_n_steps: optimizer steps between two reports.
    """

    def __init__(self, bins: int = 5, every_n_steps: int = 200) -> None:
        if bins < 1 or every_n_steps < 1:
            raise ValueError("NoiseLevelLoss needs bins and every_n_steps of at least 1.")
        self.bins = bins
        self.every_n_steps = every_n_steps
        self.reported_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: DiffusionTask) -> None:
        self.reported_step = trainer.global_step
        self.sums = torch.zeros(2, self.bins, device=pl_module.device)  # losses, counts

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionTask, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        even = outputs["t"] ** (1 / pl_module.diffusion.path.rho)
        bins = (even * self.bins).long().clamp(max=self.bins - 1)
        self.sums[0].index_add_(0, bins, outputs["losses"].float())
        self.sums[1].index_add_(0, bins, torch.ones_like(outputs["losses"], dtype=torch.float))
        step = trainer.global_step
        if step % self.every_n_steps == 0 and step != self.reported_step:
            self.reported_step = step
            self.report(trainer, pl_module)

    def report(self, trainer: L.Trainer, pl_module: DiffusionTask) -> None:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.sums)
        losses, counts = self.sums.cpu()
        for i in range(self.bins):
            if counts[i] > 0:
                low, high = ((edge / self.bins) ** pl_module.diffusion.path.rho for edge in (i, i + 1))
                name = f"noise_level/loss_t{low:.3g}-{high:.3g}"
                pl_module.log(name, losses[i] / counts[i], rank_zero_only=True)
        self.sums.zero_()
