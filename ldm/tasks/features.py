"""Training a vision network from nothing, on one's own images."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.nn.features import TimmFeatures
from ldm.tasks.base import OptimizerFactory, SchedulerFactory, Task

TURNS = 4


class FeaturesTask(Task):
    """Trains a network of timm to tell by how many quarter turns an image was rotated (Gidaris et al. 2018, arXiv
    1803.07728), which needs no labels and nobody's weights.

    Its features are what `TimmFeatures` gives when `weights` is the export of the run: for a perceptual term, and for
    distances between sets of images. Leave the EMA callback out: networks with batch norms keep the statistics of the
    trained weights, which are not those of an average.

    Args:
        model: the network's name in timm, such as resnet10t.
        optimizer: the optimizer, as class_path and init_args.
        lr_scheduler: the learning-rate schedule, as class_path and init_args; it steps once an optimizer step.
        seed: seed of the turns.
    """

    def __init__(
        self,
        model: str = "resnet10t",
        optimizer: OptimizerFactory = torch.optim.AdamW,
        lr_scheduler: SchedulerFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, seed)
        self.features = TimmFeatures(model)  # no module: what the network is, and how it wants its images
        self.backbone = self.features.built()
        self.head = nn.Linear(self.features.width, TURNS)

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "head": self.head}

    def check_data(self, data: Any) -> None:
        if data.contract is not None:
            raise UserError(f"{data.shards} holds latents: features are trained on image shards, made by `ldm pack`.")
        data.shape  # noqa: B018 (refuses a missing size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, H, W) in [-1, 1] -> logits (B, 4) of the number of quarter turns."""
        logits: Tensor = self.head(self.backbone(self.features.prepared(images)).flatten(1))
        return logits

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        turns = (self.noise(batch).uniform() * TURNS).long()
        rows = torch.arange(len(turns), device=turns.device)
        logits = self(all_turns(batch["images"])[turns, rows])
        loss = F.cross_entropy(logits, turns)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", (logits.argmax(1) == turns).float().mean())
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Every image in each of its four turns."""
        images = batch["images"]
        turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
        for suffix, swapped in self.weight_versions():
            with swapped:
                logits = self(all_turns(images).flatten(0, 1))
            accuracy = (logits.argmax(1) == turns).float().mean()
            for name, value in (("loss", F.cross_entropy(logits, turns)), ("accuracy", accuracy)):
                self.log(f"val/{name}{suffix}", value, batch_size=len(images), sync_dist=True)


def all_turns(images: Tensor) -> Tensor:
    """Square images (B, C, H, H) -> (4, B, C, H, H), rotated by 0 to 3 quarter turns."""
    return torch.stack([images.rot90(turns, (2, 3)) for turns in range(TURNS)])
