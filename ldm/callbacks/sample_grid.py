"""Samples of a denoiser, as pictures during training."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ldm.autoencoders import Autoencoder
from ldm.callbacks.pictures import publish
from ldm.callbacks.run_record import class_names
from ldm.conditioners import Conditioner, Label
from ldm.conditioners.class_names import class_title
from ldm.diffusion.guidance import ClassifierFree, Guidance
from ldm.diffusion.samplers import DDIM, Sampler
from ldm.errors import UserError
from ldm.images import grid
from ldm.sampling import Request, Wish, check_request, sample_images
from ldm.sampling.checks import check_decoder
from ldm.sampling.request import pick
from ldm.tasks import DiffusionTask

COLUMNS = 8  # where nothing is named


class SampleGrid(L.Callback):
    """Draws the same noises and conditions again and again, with the averaged weights: one column a condition.

    What is not named is taken from the first samples of the validation set, or of the training set.

    Every rank samples its share; rank zero writes a PNG into the run folder's pictures/ and to TensorBoard.

    Args:
        every_n_steps: optimizer steps between two grids; one more is drawn when training ends.
        classes: of a class-conditional model: classes to draw, one column each; left out, the first eight.
        prompts: of a text-conditional model: prompts to draw, one column each; left out, captions of the data.
        rows: images a column.
        sampler: the sampler; left out, DDIM with 50 steps.
        guidance_scale: classifier-free guidance, 1 = off.
        seed: seed of the first image.
        batch_size: images that are sampled at once on each rank.
        decoder: draws the latents, faster than the model's autoencoder: a TinyDecoder of the same latents, usually
            class_path ldm.runs.load_autoencoder with init_args {run: FOLDER}.
    """

    def __init__(
        self,
        every_n_steps: int = 5000,
        classes: list[int] | None = None,
        prompts: list[str] | None = None,
        rows: int = 4,
        sampler: Sampler | None = None,
        guidance_scale: float = 2.0,
        seed: int = 0,
        batch_size: int = 32,
        decoder: Autoencoder | None = None,
    ) -> None:
        if every_n_steps < 1 or rows < 1 or batch_size < 1:
            raise ValueError("SampleGrid needs every_n_steps, rows and batch_size of at least 1.")
        self.every_n_steps = every_n_steps
        if classes and prompts and len(classes) != len(prompts):
            raise ValueError("SampleGrid needs as many prompts as classes: each column has one of both.")
        self.classes = classes
        self.prompts = prompts
        self.examples: dict[str, Any] = {}
        self.rows = rows
        self.sampler = sampler or DDIM(50)
        self.guidance_scale = guidance_scale
        self.seed = seed
        self.batch_size = batch_size
        self.decoder = decoder
        self.drawn_step = -1

    def setup(self, trainer: L.Trainer, pl_module: DiffusionTask, stage: str) -> None:
        data = getattr(trainer, "datamodule", None)
        if data is not None and stage == "fit" and len(pl_module.conditioner):
            self.examples = data.examples(len(self.classes or self.prompts or ()) or COLUMNS)
            pl_module.conditioner.name_classes(class_names(trainer))
        request, _ = self.request(pl_module)
        try:
            check_request(pl_module, request)
            if self.decoder is not None:
                check_decoder(pl_module, self.decoder)
        except UserError as error:
            raise UserError(
                f"SampleGrid cannot draw what it is to draw; take it out to train without. {error}"
            ) from None
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
        decoder = task.autoencoder if self.decoder is None else self.decoder.to(task.device).eval()
        images = sample_on_all_ranks(trainer, task, request, self.sampler, self.batch_size, decoder)
        if trainer.is_global_zero:
            publish(trainer, grid(images, len(titles), titles), "samples")

    def request(self, task: DiffusionTask) -> tuple[Request, list[str]]:
        """What to draw, row by row, and the title of each column."""
        wish = task.conditioner.wish(self.examples)
        wish |= {key: named for key, named in self.named(task.conditioner).items() if named}
        columns = len(self.classes or self.prompts or ()) or min(map(len, wish.values()), default=COLUMNS)
        seeds = range(self.seed, self.seed + self.rows * columns)
        dealt: dict[str, Any] = {}  # a small set may have fewer examples than there are columns
        for key, values in wish.items():
            dealt |= pick({key: values}, [column % len(values) for column in range(columns)] * self.rows)
        guidance = self.guidance() if wish else []
        return Request(seeds, dealt, guidance), column_titles(task.conditioner, dealt, columns)

    def named(self, conditioner: Conditioner) -> dict[str, Sequence[Any]]:
        """The columns that are named, and the first classes where none are."""
        label = conditioner.reader("labels")
        classes: Sequence[int] = self.classes or []
        if isinstance(label, Label) and not classes:
            width = len(self.prompts or ()) or COLUMNS
            classes = [i % label.num_classes for i in range(width if self.prompts else min(width, label.num_classes))]
        return {"labels": classes, "captions": self.prompts or []}

    def guidance(self) -> list[Guidance]:
        return [] if self.guidance_scale == 1 else [ClassifierFree(self.guidance_scale)]


def column_titles(conditioner: Conditioner, wish: Wish, columns: int) -> list[str]:
    """What stands above each column: its prompt or its class."""
    if "captions" in wish:
        return [str(caption) for caption in wish["captions"][:columns]]
    if "labels" in wish:
        label = conditioner.reader("labels")
        names = (label.names if isinstance(label, Label) else None) or []
        return [class_title(i, names[i] if i < len(names) else None) for i in map(int, wish["labels"][:columns])]
    return [""] * columns


@torch.inference_mode()
def sample_on_all_ranks(
    trainer: L.Trainer,
    task: DiffusionTask,
    request: Request,
    sampler: Sampler,
    batch_size: int,
    decoder: Autoencoder,
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
            parts = part.split(batch_size)
            images = torch.cat([sample_images(task, piece, sampler, decode=decoder.decode) for piece in parts])
    finally:
        task.train(training)
    gathered = trainer.strategy.all_gather(images)  # (world, n, C, H, W), or (n, C, H, W) on one rank
    if world > 1:
        gathered = gathered.transpose(0, 1).flatten(0, 1)
    return gathered[:count]
