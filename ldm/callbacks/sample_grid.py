"""Pictures during training: samples of a denoiser, reconstructions of an autoencoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm.diffusion.guidance import ClassifierFree, Guidance
from ldm.diffusion.samplers import DDIM, Sampler
from ldm.errors import UserError
from ldm.images import grid
from ldm.sampling import Request, sample_images
from ldm.tasks import AutoencoderTask, DiffusionTask

PICTURES = "pictures"


class SampleGrid(L.Callback):
    """Draws the same noises and classes again and again, with the averaged weights: one column a class.

    Every rank samples its share; rank zero writes a PNG into the run folder's pictures/ and to TensorBoard.

    Args:
        every_n_steps: optimizer steps between two grids; one more is drawn when training ends.
        classes: classes to draw, one column each; left out, the first eight.
        rows: images a class.
        sampler: the sampler; left out, DDIM with 50 steps.
        guidance_scale: classifier-free guidance, 1 = off.
        seed: seed of the first image.
        batch_size: images that are sampled at once on each rank.
    """

    def __init__(
        self,
        every_n_steps: int = 5000,
        classes: Sequence[int] | None = None,
        rows: int = 4,
        sampler: Sampler | None = None,
        guidance_scale: float = 2.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        if every_n_steps < 1 or rows < 1 or batch_size < 1:
            raise ValueError("SampleGrid needs every_n_steps, rows and batch_size of at least 1.")
        self.every_n_steps = every_n_steps
        self.classes = None if classes is None else list(classes)
        self.rows = rows
        self.sampler = sampler or DDIM(50)
        self.guidance_scale = guidance_scale
        self.seed = seed
        self.batch_size = batch_size
        self.drawn_step = -1

    def setup(self, trainer: L.Trainer, pl_module: DiffusionTask, stage: str) -> None:
        known = pl_module.conditioner.num_classes
        for label in self.classes or ():
            if known is None or not 0 <= label < known:
                raise UserError(f"SampleGrid is to draw class {label} and the model knows {known or 'no'} classes.")
        if known is not None and self.guidance_scale != 1 and pl_module.conditioner.dropout == 0:
            raise UserError(
                f"SampleGrid is to guide at {self.guidance_scale} and the conditioner's dropout is 0, so the model "
                "never learns what guidance holds it against: set dropout to 0.1, or SampleGrid's guidance_scale to 1."
            )
        try:
            self.sampler.check(pl_module.diffusion.path)
        except ValueError as error:
            raise UserError(f"SampleGrid cannot sample this model: {error}") from None

    def on_train_start(self, trainer: L.Trainer, pl_module: DiffusionTask) -> None:
        self.drawn_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionTask) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: L.Trainer, task: DiffusionTask) -> None:
        if trainer.global_step == self.drawn_step:
            return
        self.drawn_step = trainer.global_step
        request, titles = self.request(task)
        images = sample_on_all_ranks(trainer, task, request, self.sampler, self.batch_size)
        if trainer.is_global_zero:
            publish(trainer, grid(images, len(titles), titles), "samples")

    def request(self, task: DiffusionTask) -> tuple[Request, list[str]]:
        """What to draw, row by row, and the title of each column."""
        known = task.conditioner.num_classes
        if known is None:
            columns = 8
            return Request(range(self.seed, self.seed + self.rows * columns)), [""] * columns
        classes = self.classes if self.classes is not None else list(range(min(8, known)))
        seeds = range(self.seed, self.seed + self.rows * len(classes))
        return Request(seeds, classes * self.rows, self.guidance()), [f"class {label}" for label in classes]

    def guidance(self) -> list[Guidance]:
        return [] if self.guidance_scale == 1 else [ClassifierFree(self.guidance_scale)]


@torch.inference_mode()
def sample_on_all_ranks(
    trainer: L.Trainer, task: DiffusionTask, request: Request, sampler: Sampler, batch_size: int
) -> Tensor:
    """The images of a request (N, C, H, W) on every rank; each rank has sampled every world_size-th of them."""
    world, rank, count = trainer.world_size, trainer.global_rank, len(request.seeds)
    # Every rank samples equally many, the last ones perhaps twice, because gathering needs equal shapes.
    mine = [min(i, count - 1) for i in range(rank, -(-count // world) * world, world)]
    part = request.pick(mine)
    training = task.training
    task.eval()
    try:
        with task.averaged(), trainer.precision_plugin.forward_context():
            images = torch.cat([sample_images(task, piece, sampler) for piece in part.split(batch_size)])
    finally:
        task.train(training)
    gathered = trainer.strategy.all_gather(images)  # (world, n, C, H, W), or (n, C, H, W) on one rank
    if world > 1:
        gathered = gathered.transpose(0, 1).flatten(0, 1)
    return gathered[:count]


class ReconstructionGrid(L.Callback):
    """After each validation: the first images of the validation set above what the autoencoder makes of them.

    Args:
        columns: number of images.
    """

    def __init__(self, columns: int = 8) -> None:
        self.columns = columns

    @torch.inference_mode()
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: AutoencoderTask, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if batch_idx > 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        images = batch["images"][: self.columns]
        with pl_module.averaged(), trainer.precision_plugin.forward_context():
            autoencoder = pl_module.autoencoder
            reconstructions = autoencoder.reconstruct(autoencoder.posterior(images).mode).float()
        publish(trainer, grid(torch.cat([images, reconstructions]), len(images)), "reconstructions")


def publish(trainer: L.Trainer, picture: Image.Image, name: str) -> None:
    """Write a picture into the run folder and to TensorBoard, if that is the logger."""
    step = trainer.global_step
    path = Path(trainer.default_root_dir) / PICTURES / f"{name}-{step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    if isinstance(trainer.logger, TensorBoardLogger):
        trainer.logger.experiment.add_image(name, pil_to_tensor(picture), step)
