"""What every training task shares: its optimizer, its schedule, and the averages of its weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ldm.errors import UserError
from ldm.nn.ema import WeightAverage
from ldm.seeding import seeded_generator
from ldm.tasks.hyperparameters import check_optimizer, follow, hyperparameters

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Task(L.LightningModule, ABC):
    """A LightningModule whose trained parts are named, so that the moving averages and the checkpoints know them.

    Attributes:
        averages: the moving averages of the trained weights by decay; filled by the EMA callback, the first is
            the one that validation, sampling and export use.
    """

    def __init__(self, optimizer: OptimizerFactory, lr_scheduler: SchedulerFactory | None, seed: int) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self.averages: dict[str, WeightAverage] = {}
        self.hyperparameters: dict[str, Any] | None = None  # of the config; the checkpoint's own are in `resumed`
        self.resumed: dict[str, Any] | None = None

    @abstractmethod
    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the optimizer moves, by attribute name."""

    def is_frozen(self, key: str) -> bool:
        """Whether a state-dict key belongs to a part that lives in another run folder, and not in the checkpoints."""
        return False

    def is_training_only(self, key: str) -> bool:
        """Whether a state-dict key belongs to a part that only training needs, and that is left out when it is used."""
        return False

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by their state-dict names."""
        return {
            f"{name}.{key}": parameter
            for name, module in self.trained_modules().items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def averaged_parameters(self) -> dict[str, nn.Parameter]:
        """Those of them whose moving averages are worth keeping: what the model is used with after training."""
        return self.trained_parameters()

    @abstractmethod
    def check_data(self, data: Any) -> None:
        """Raise a ValueError that says what to change if the data module's samples do not fit the model."""

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            try:
                self.check_data(data)
            except ValueError as error:
                raise UserError(str(error)) from None

    def noise(self, batch: dict[str, Any]) -> "BatchNoise":
        """The random numbers of this training step."""
        global_batch = len(batch["positions"]) * self.trainer.world_size
        return BatchNoise(self.seed, batch["step"], batch["positions"] % global_batch, global_batch)

    def averaged(self) -> AbstractContextManager[None]:
        """Within the block the first moving average stands in the network, if there is one."""
        for average in self.averages.values():
            return average.swapped(self.averaged_parameters())
        return nullcontext()

    def weight_versions(self) -> Iterator[tuple[str, AbstractContextManager[None]]]:
        """Name suffix and swap of each version of the weights: "" for the trained ones, "_ema<decay>" for averages."""
        yield "", nullcontext()
        for decay, average in self.averages.items():
            yield f"_ema{decay}", average.swapped(self.averaged_parameters())

    def configure_optimizers(self) -> Any:
        if not self.trained_parameters():
            raise UserError("There is nothing to train: the model has no weights, or all of them are frozen.")
        optimizer = self.optimizer(self.trained_parameters().values())
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        self.hyperparameters = hyperparameters(*self.trained_by())
        if self.resumed is not None:
            check_optimizer(self.resumed, self.hyperparameters)

    def on_train_start(self) -> None:
        if self.resumed is not None and self.hyperparameters is not None and self.resumed != self.hyperparameters:
            rank_zero_info("The config's optimizer or schedule has changed; training goes on as it says now.")
            follow(*self.trained_by(), self.resumed, self.hyperparameters, self.trainer.global_step)

    def trained_by(self) -> tuple[Optimizer, LRScheduler | None]:
        """The optimizer and the schedule that the trainer has built."""
        schedulers = self.trainer.lr_scheduler_configs
        return self.trainer.optimizers[0], schedulers[0].scheduler if schedulers else None

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Raise a UserError where weights from a file are not this model's in name or shape, naming one."""
        own = self.state_dict()
        for name in sorted(own.keys() | weights.keys()):
            here, there = (tuple(side[name].shape) if name in side else "absent" for side in (own, weights))
            if here != there:
                raise UserError(
                    f"The saved weights are of another model than the config's: {name} is {there} in the file and "
                    f"{here} in the config's model: give the config that belongs to the run folder, or another folder."
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if not self.is_frozen(k)}
        checkpoint["ema"] = {decay: average.state_dict() for decay, average in self.averages.items()}
        checkpoint["hyperparameters"] = self.hyperparameters

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.resumed = checkpoint.get("hyperparameters")
        frozen = {k: v for k, v in self.state_dict().items() if self.is_frozen(k)}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **frozen}
        self.check_weights(checkpoint["state_dict"])
        for decay, average in self.averages.items():
            if decay in checkpoint.get("ema", {}):
                average.load_state_dict(checkpoint["ema"][decay])


class BatchNoise:
    """The random numbers of one training step, drawn for the whole global batch; each rank keeps its own rows.

    They depend on (seed, step) and on a sample's place in the global batch, never on the number of ranks, so a
    resumed run, or one on another number of devices, sees the same numbers.

    Args:
        seed: the task's seed.
        step: number of the global batch since the start of training.
        rows: (B,) places of this rank's samples in the global batch.
        global_batch: samples in the global batch.
    """

    def __init__(self, seed: int, step: int, rows: Tensor, global_batch: int) -> None:
        self.generator = seeded_generator("training", seed, step, device=rows.device)
        self.rows = rows
        self.global_batch = global_batch

    def uniform(self) -> Tensor:
        """(B,) in [0, 1)."""
        return self.uniform_of_all()[self.rows]

    def uniform_of_all(self) -> Tensor:
        """(global_batch,) in [0, 1), of which `rows` are this rank's."""
        return torch.rand(self.global_batch, generator=self.generator, device=self.rows.device)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""
        drawn = torch.randn(self.global_batch, *shape, generator=self.generator, device=self.rows.device)
        return drawn[self.rows]

    def shared(self, count: int) -> Tensor:
        """(count,) in [0, 1), the same on every rank."""
        return torch.rand(count, generator=self.generator, device=self.rows.device)
