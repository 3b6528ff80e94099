"""Reconstructions of an autoencoder, as pictures during training."""

from typing import Any

import lightning as L
import torch

from ldm.callbacks.pictures import publish
from ldm.images import grid
from ldm.tasks import AutoencoderTask


class ReconstructionGrid(L.Callback):
    """After each validation: the first images of the validation set, below them what the autoencoder makes of them, and
    below that how far the two are apart, black where they are equal.

    The images are the same ones each time, whatever order the training set is read in. The averaged weights draw, and
    what is quantised is drawn as it is used.

    Args:
        columns: number of images; no more than stand in the first batch.
        amplify: factor of the differences; white are those of 1 / amplify of the range from black to white, and more.
    """

    def __init__(self, columns: int = 8, amplify: float = 4.0) -> None:
        if columns < 1 or amplify <= 0:
            raise ValueError("ReconstructionGrid needs at least 1 column, and a positive amplify.")
        self.columns = columns
        self.amplify = amplify

    @torch.inference_mode()
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: AutoencoderTask, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if batch_idx > 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        images = batch["images"][: self.columns]
        with pl_module.averaged(), trainer.precision_plugin.forward_context():
            made = pl_module.autoencoder.examine(images).reconstructions
        images, made = images.float(), made.float().clamp(-1.0, 1.0)
        apart = (images - made).abs() * self.amplify - 1.0
        names = ["image", "made", f"difference x {self.amplify:g}"]
        publish(trainer, grid(torch.cat([images, made, apart]), len(images), row_titles=names), "reconstructions")
