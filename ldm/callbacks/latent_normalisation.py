"""Latent mean and standard deviation, measured when the training of an autoencoder ends."""

import lightning as L
import torch

from ldm.autoencoders import LatentStatistics
from ldm.errors import UserError
from ldm.tasks import AutoencoderTask


class LatentNormalisation(L.Callback):
    """Measures the latents of the training set and makes the autoencoder own the result; until then it has none.

    The averaged weights encode, since they are what later loads; every rank reads its share. It runs before the last
    checkpoint is saved. On other tasks, and where the latents are another autoencoder's, it does nothing.

    Args:
        num_samples: number of training images to measure over; the whole set where it is smaller.
    """

    def __init__(self, num_samples: int = 50_000) -> None:
        self.num_samples = num_samples

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what was measured: weights that came from elsewhere, or that train on, have other latents soon."""
        if isinstance(pl_module, AutoencoderTask) and not pl_module.autoencoder.borrowed:
            pl_module.autoencoder.forget_statistics()

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, AutoencoderTask) or data is None:
            return
        autoencoder = pl_module.autoencoder
        if autoencoder.borrowed:
            return
        statistics = LatentStatistics(autoencoder.latent_channels)
        autoencoder.eval()
        try:
            with pl_module.averaged(), trainer.precision_plugin.forward_context():
                for images in data.plain_images(self.num_samples):
                    posterior = autoencoder.posterior(images.to(pl_module.device))
                    statistics.update(posterior.mean, posterior.std**2)
            autoencoder.set_statistics(*statistics.finalize())
        except ValueError as error:  # what came out of training is of no use, and the user is to know why
            raise UserError(f"The latents of the trained autoencoder cannot be measured. {error}") from None
