"""One rank of a two-process run, started by test_two_processes.py: python two_ranks.py SHARDS OUT, under torchrun's
environment. Does everything that needs two processes, and leaves what it saw in OUT/rank<r>.pt."""

import os
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tiny_models import Losses, adversarial_task, autoencoder_task, diffusion_task, digit_data, fit, tiny_quantised

from ldm.autoencoders import LatentStatistics, Pixels
from ldm.autoencoders.measures import FrechetDistance
from ldm.autoencoders.quantisers import VQ
from ldm.callbacks import EMA, LatentNormalisation, NoiseLevelLoss, SampleGrid, Throughput
from ldm.diffusion.samplers import DDIM
from ldm.nn.features import TimmFeatures
from ldm.tasks.autoencoder import usual_measures


class Positions(L.Callback):
    """Writes down which samples this rank saw, by global batch."""

    def __init__(self):
        self.by_batch = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.by_batch[batch["step"]] = batch["positions"].tolist()


def train_denoiser(shards, run, steps, rank=0, **options):
    """Each rank starts from weights of its own; those of rank zero must win."""
    task, losses, positions = diffusion_task(seed=100 * rank), Losses(), Positions()
    grid = SampleGrid(every_n_steps=100, classes=[7, 1, 4], rows=3, sampler=DDIM(3), batch_size=2)
    callbacks = [EMA((0.9, 0.5)), grid, NoiseLevelLoss(2, 2), Throughput(2), losses, positions]
    settings = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trainer = fit(task, digit_data(shards), run, steps, callbacks, **{**settings, **options})
    return {
        "losses": losses.by_batch,
        "positions": positions.by_batch,
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "weights": {k: v.detach().clone() for k, v in task.trained_parameters().items()},
        "ema": {decay: average.state_dict() for decay, average in task.averages.items()},
    }


def train_autoencoder(shards, run, rank=0, **options):
    task, losses = autoencoder_task(seed=100 * rank), Losses()
    callbacks = [EMA((0.9,)), LatentNormalisation(), losses]
    settings = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trainer = fit(task, digit_data(shards), run, 3, callbacks, **{**settings, **options})
    autoencoder = task.autoencoder
    return {
        "losses": losses.by_batch,
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "state": {k: v.clone() for k, v in task.state_dict().items()},
        "statistics": [autoencoder.latent_mean, autoencoder.latent_std, autoencoder.latent_samples],
        "ema": task.averages["0.9"].state_dict(),
    }


def train_adversarial(shards, run, rank=0, **options):
    """With code words that are averaged and restarted, and a discriminator that begins after the first batch."""
    torch.manual_seed(100 * rank)
    quantiser = VQ(16, 2, codebook="ema", restart_every=2, restart_below=0.9)
    task, losses = adversarial_task(100 * rank, quantiser, start=2, warmup=1), Losses()
    trainer = fit(task, digit_data(shards), run, 5, [EMA((0.9,)), losses], **options)
    return {
        "losses": losses.by_batch,
        "state": {k: v.clone() for k, v in task.state_dict().items()},
        "moments": trainer.optimizers[0].parts[1].state_dict()["state"],
    }


def measure_pixels(shards, rank=0, world=1):
    """Statistics over 37 images, by latents that are the images and so the same in every batch."""
    data = digit_data(shards)
    if world > 1:
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
    pixels, statistics = Pixels(1), LatentStatistics(1)
    for images in data.plain_images(37):
        posterior = pixels.posterior(images)
        statistics.update(posterior.mean, posterior.std**2)
    mean, std, count = statistics.finalize()
    return {"seen": statistics.num_samples, "mean": mean, "std": std, "count": count}


@torch.no_grad()
def measure_reconstructions(shards, rank=0, world=1):
    """Everything that validation can measure without weights of others, over 37 images."""
    data = digit_data(shards)
    if world > 1:
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
    autoencoder = tiny_quantised().eval()
    measures = [*usual_measures(autoencoder), FrechetDistance(TimmFeatures("test_resnet"))]
    for images in data.plain_images(37):
        for measure in measures:
            measure.update(autoencoder.examine(images))
    return {name: value.item() for measure in measures for name, value in measure.compute().items()}


def main(shards, out):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])

    def two():
        return {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))}

    seen = {
        "denoiser": train_denoiser(shards, out / "denoiser", 4, rank, **two()),
        "resumed": train_denoiser(shards, out / "from_one", 7, rank, **two()),
        "autoencoder": train_autoencoder(shards, out / "autoencoder", rank, **two()),
        "adversarial": train_adversarial(shards, out / "adversarial", rank, **two()),
        "pixels": measure_pixels(shards, rank, 2),
        "measures": measure_reconstructions(shards, rank, 2),
    }
    torch.save(seen, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
