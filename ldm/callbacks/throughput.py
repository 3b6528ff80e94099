"""How fast training is, where its time goes, and how much of the device it uses."""

import time
from typing import Any

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

# Dense bf16 peak of one device in FLOP/s by a part of its name, from the makers' data sheets (no sparsity).
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
    "4090": 165e12,
    "3090": 71e12,
}


class Throughput(L.Callback):
    """Logs images a second over all ranks, seconds a step, the share of it spent waiting for data, and, where the
    device's peak is known, the model FLOPs utilisation: counted FLOPs of forward and backward over bf16 peak.

    Args:
        every_n_steps: batches between two reports.
        count_flops: count the FLOPs of the first training step (once, it costs one slow step).
    """

    def __init__(self, every_n_steps: int = 50, count_flops: bool = True) -> None:
        if every_n_steps < 1:
            raise ValueError("Throughput needs every_n_steps of at least 1.")
        self.every_n_steps = every_n_steps
        self.count_flops = count_flops
        self.flops_per_batch: int | None = None
        self.counter: FlopCounterMode | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.restart()
        self.batch_ended = time.perf_counter()

    def restart(self) -> None:
        self.batches, self.images, self.waited, self.spent = 0, 0, 0.0, 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch_started = time.perf_counter()
        if self.count_flops and self.flops_per_batch is None and peak_flops(pl_module.device):
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.flops_per_batch, self.counter = self.counter.get_total_flops(), None
            self.batch_ended = time.perf_counter()
            return  # a counted step is no step to time
        self.batches += 1
        self.images += len(batch["positions"]) * trainer.world_size
        if self.batches == self.every_n_steps and pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # one wait a report, so that the clock sees the queued work
        now = time.perf_counter()
        self.waited += self.batch_started - self.batch_ended
        self.spent += now - self.batch_ended
        self.batch_ended = now
        if self.batches == self.every_n_steps:
            self.report(pl_module)
            self.restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.batch_ended = time.perf_counter()  # validation is no waiting for data

    def report(self, pl_module: L.LightningModule) -> None:
        values = {
            "images_per_s": self.images / self.spent,
            "step_s": self.spent / self.batches,
            "data_wait": self.waited / self.spent,
        }
        peak = peak_flops(pl_module.device)
        if peak and self.flops_per_batch:
            values["mfu"] = self.flops_per_batch * self.batches / self.spent / peak
        for name, value in values.items():
            pl_module.log(f"throughput/{name}", value, rank_zero_only=True, prog_bar=name == "images_per_s")


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of the device, or None where it is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
