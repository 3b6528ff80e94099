"""Training an autoencoder."""

import copy
import sys
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from ldm.autoencoders import KL, Autoencoded, Autoencoder, AutoencoderLoss, QuantisedAutoencoder
from ldm.autoencoders.measures import CodeUse, LatentShape, Measure, PixelQuality, code_counts, use_of
from ldm.errors import UserError
from ldm.tasks.base import OptimizerFactory, SchedulerFactory, Task
from ldm.tasks.joint import JointOptimizer, JointSchedule


class AutoencoderTask(Task):
    """Trains an autoencoder to reconstruct images, and with an adversarial term its discriminator beside it.

    Both learn from the same pass: the gradient of the sum of their losses, in which neither loss reaches the other's
    weights, is taken once, and both optimizers step together.

    Args:
        autoencoder: the autoencoder to train.
        loss: reconstruction error, KL weight and further terms.
        optimizer: the optimizer, as class_path and init_args.
        lr_scheduler: the learning-rate schedule, as class_path and init_args; it steps once an optimizer step.
        discriminator_optimizer: the discriminator's optimizer; left out, one such as the autoencoder's.
        discriminator_scheduler: the discriminator's schedule; left out, its learning rate stays.
        seed: seed of the posterior noise and of what else is random in a step.
        compile: run the autoencoder through torch.compile.
        channels_last: keep feature maps in the channels-last memory format, which is faster on most GPUs.
        init_from: run folder or export of an autoencoder, or a weight file of another code base (.safetensors, .ckpt):
            a new run starts from all of its weights that fit, and says which. A resumed run does not look there.
        measures: what validation measures beside PSNR, SSIM, the latents' shape and the use of the codes.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        loss: AutoencoderLoss | None = None,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        lr_scheduler: SchedulerFactory | None = None,
        discriminator_optimizer: OptimizerFactory | None = None,
        discriminator_scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        compile: bool = False,
        channels_last: bool = False,
        init_from: str | None = None,
        measures: list[Measure] | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, seed)
        self.autoencoder = autoencoder.train()  # one that comes from another run is in eval mode
        self.loss = AutoencoderLoss(kl_weight=1e-6 if autoencoder.has_spread else 0.0) if loss is None else loss
        self.discriminator_optimizer = discriminator_optimizer or optimizer
        self.discriminator_scheduler = discriminator_scheduler
        self.init_from = init_from
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.measures = [*usual_measures(autoencoder), *(measures or [])]
        self.measuring: list[list[Measure]] = []  # for each version of the weights
        check_loss(autoencoder, self.loss)
        if channels_last:
            self.to(memory_format=torch.channels_last)
        if compile:
            # Balancing takes several gradients of one graph, whose buffers the compiler would otherwise reuse.
            torch._functorch.config.donated_buffer = False
            for part in autoencoder.children():
                part.compile()

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "loss": self.loss}

    def averaged_parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.trained_parameters().items() if not self.is_training_only(name)}

    def is_frozen(self, key: str) -> bool:
        return any(key.startswith(f"autoencoder.{part}.") for part in self.autoencoder.borrowed)

    def is_training_only(self, key: str) -> bool:
        return key.startswith("loss.")

    def configure_optimizers(self) -> Any:
        adversarial = self.loss.adversarial
        if adversarial is None:
            return super().configure_optimizers()
        judging = {id(parameter) for parameter in adversarial.discriminator.parameters()}
        parameters = self.trained_parameters().values()
        autoencoder = self.optimizer([p for p in parameters if id(p) not in judging])
        discriminator = self.discriminator_optimizer([p for p in parameters if id(p) in judging])
        optimizer = JointOptimizer([autoencoder, discriminator])
        schedules = [
            None if schedule is None else schedule(part)
            for schedule, part in ((self.lr_scheduler, autoencoder), (self.discriminator_scheduler, discriminator))
        ]
        if schedules == [None, None]:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": JointSchedule(optimizer, schedules), "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the autoencoder's gradient and the discriminator's each by its own size."""
        for part in optimizer.parts if isinstance(optimizer, JointOptimizer) else [optimizer]:
            self.clip_gradients(part, gradient_clip_val, gradient_clip_algorithm)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        for parameter in self.loss.idle_parameters(self.batch_number):
            parameter.grad = None  # a gradient of zeros would still count as a step of its optimizer

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for measure in self.measures:
            measure.check()
        if stage == "fit":
            for term in self.loss.each_term():
                term.check_files()
            if self.trainer.precision in ("16-true", "bf16-true"):
                raise UserError(
                    f"trainer.precision is {self.trainer.precision}, which makes the weights half precision, too "
                    "coarse for an autoencoder's losses and gradients: give bf16-mixed or 16-mixed."
                )

    def on_train_start(self) -> None:
        super().on_train_start()
        adversarial, trainer = self.loss.adversarial, self.trainer
        batches: float
        if trainer.max_steps > 0:
            batches = trainer.max_steps * trainer.accumulate_grad_batches
        else:
            batches = (trainer.max_epochs or 0) * trainer.num_training_batches
        if adversarial is not None and 0 < batches <= adversarial.start:
            rank_zero_warn(
                f"The adversarial term starts at batch {adversarial.start}, and the run ends after {batches}: the "
                "autoencoder will never hear its discriminator. Give an earlier start, or a longer run."
            )

    def check_data(self, data: Any) -> None:
        if data.contract is not None:
            raise UserError(f"{data.shards} holds latents: an autoencoder trains on image shards, made by `ldm pack`.")
        if data.channels != self.autoencoder.in_channels:
            raise UserError(
                f"The data gives {data.channels} channel(s) and the autoencoder takes {self.autoencoder.in_channels}: "
                "make data.channels and the autoencoder's in_channels equal."
            )
        self.autoencoder.latent_shape(*data.shape[1:])
        if self.loss.adversarial is not None:
            self.loss.adversarial.discriminator.check_size(*data.shape[1:])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.batch_number = batch["step"]
        images = batch["images"].to(memory_format=self.memory_format)
        seen = self.autoencoder.autoencode(images, self.noise(batch))
        terms = self.loss(seen, self.batch_number)
        for name, value in terms.items():
            self.log(f"train/{name}", value, prog_bar=name == "total")
        self.log_code_use(seen)
        loss = terms["total"] + terms.get("discriminator", 0.0)
        if self.trainer.world_size > 1:  # which waits for a gradient of each weight
            loss = loss + sum(0.0 * parameter.sum() for parameter in self.loss.idle_parameters(self.batch_number))
        return loss

    def log_code_use(self, seen: Autoencoded) -> None:
        """Of this rank's part of the batch, if there are codes."""
        if seen.codes is not None and isinstance(seen.autoencoder, QuantisedAutoencoder):
            counts = code_counts(seen.codes, seen.autoencoder.quantiser.num_codes)
            for name, value in use_of(counts).items():
                self.log(f"train/{name}", value)

    def on_validation_start(self) -> None:
        self.measuring = [copy.deepcopy(self.measures) for _ in self.weight_versions()]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        images = batch["images"].to(memory_format=self.memory_format)
        for measures, (suffix, swapped) in zip(self.measuring, self.weight_versions(), strict=True):
            with swapped:
                seen = self.autoencoder.examine(images)
            for measure in measures:
                measure.update(seen)
            for name, value in self.loss(seen, batch=sys.maxsize).items():  # at the weights of the end
                self.log(f"val/{name}{suffix}", value, batch_size=len(images), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        for measures, (suffix, _) in zip(self.measuring, self.weight_versions(), strict=True):
            for measure in measures:
                for name, value in measure.compute().items():
                    self.log(f"val/{name}{suffix}", value.float(), sync_dist=False)


def usual_measures(autoencoder: Autoencoder) -> list[Measure]:
    """What costs little and needs no weights of others."""
    measures: list[Measure] = [PixelQuality(), LatentShape(autoencoder.latent_channels)]
    if isinstance(autoencoder, QuantisedAutoencoder):
        measures.append(CodeUse(autoencoder.quantiser.num_codes))
    return measures


def check_loss(autoencoder: Autoencoder, loss: AutoencoderLoss) -> None:
    """Raise a ValueError where a loss does not suit an autoencoder."""
    if not autoencoder.has_spread and any(isinstance(term, KL) for term in loss.each_term()):
        raise ValueError(
            f"The latents of {type(autoencoder).__name__} are points, whose KL divergence means nothing: set the "
            "loss's kl_weight to 0."
        )
    for term in loss.each_term():
        term.check(autoencoder)
