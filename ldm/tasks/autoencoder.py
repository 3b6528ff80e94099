"""Training an autoencoder."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ldm.autoencoders import Autoencoder, AutoencoderLoss
from ldm.errors import UserError
from ldm.tasks.base import OptimizerFactory, SchedulerFactory, Task


class AutoencoderTask(Task):
    """Trains an autoencoder to reconstruct images through a latent that is kept close to a Gaussian.

    Args:
        autoencoder: the autoencoder to train.
        loss: reconstruction error, KL weight and further terms.
        optimizer: the optimizer, as class_path and init_args.
        lr_scheduler: the learning-rate schedule, as class_path and init_args; it steps once an optimizer step.
        seed: seed of the posterior noise.
        compile: run the autoencoder through torch.compile.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        loss: AutoencoderLoss,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        lr_scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, seed)
        self.autoencoder = autoencoder
        self.loss = loss
        self.metrics: list[MetricCollection] = []
        if compile:
            for part in autoencoder.children():
                part.compile()

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "loss": self.loss}

    def check_data(self, data: Any) -> None:
        if data.contract is not None:
            raise UserError(f"{data.shards} holds latents: an autoencoder trains on image shards, made by `ldm pack`.")
        if data.channels != self.autoencoder.in_channels:
            raise UserError(
                f"The data gives {data.channels} channel(s) and the autoencoder takes {self.autoencoder.in_channels}: "
                "make data.channels and the autoencoder's in_channels equal."
            )
        self.autoencoder.latent_shape(*data.shape[1:])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        images = batch["images"]
        eps = self.noise(batch).normal(*self.autoencoder.latent_shape(*images.shape[2:]))
        posterior = self.autoencoder.posterior(images)
        terms = self.loss(images, self.autoencoder.reconstruct(posterior.sample(eps)), posterior)
        for name, value in terms.items():
            self.log(f"train/{name}", value, prog_bar=name == "total")
        return terms["total"]

    def on_validation_start(self) -> None:
        # One collection for each version of the weights; a plain list, so that none of it is in the checkpoint.
        self.metrics = [image_metrics().to(self.device) for _ in self.weight_versions()]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        images = batch["images"]
        for metrics, (suffix, swapped) in zip(self.metrics, self.weight_versions(), strict=True):
            with swapped:
                posterior = self.autoencoder.posterior(images)
                reconstructions = self.autoencoder.reconstruct(posterior.mode).float()
            metrics.update(reconstructions.clamp(-1, 1), images)
            terms = self.loss(images, reconstructions, posterior)
            for name, value in terms.items():
                self.log(f"val/{name}{suffix}", value, batch_size=len(images), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        for metrics, (suffix, _) in zip(self.metrics, self.weight_versions(), strict=True):
            for name, value in metrics.compute().items():
                self.log(f"val/{name}{suffix}", value, sync_dist=False)


def image_metrics() -> MetricCollection:
    """Peak signal-to-noise ratio in dB and structural similarity, of images in [-1, 1]."""
    data_range = (-1.0, 1.0)
    return MetricCollection(
        {
            "psnr": PeakSignalNoiseRatio(data_range),
            "ssim": StructuralSimilarityIndexMeasure(data_range=data_range),
        }
    )
