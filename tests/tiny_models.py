"""Models, data and fits that are small enough for a test; also imported by the two-process script."""

import warnings
from pathlib import Path

import lightning as L
import torch
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from ldm import checkpoints
from ldm.autoencoders import Adversarial, AutoencoderLoss, KLAutoencoder, QuantisedAutoencoder
from ldm.autoencoders.discriminators import PatchGAN
from ldm.autoencoders.quantisers import VQ
from ldm.callbacks import SaveCheckpoints
from ldm.conditioners import Conditioner, Label
from ldm.data import ShardData
from ldm.diffusion import Diffusion
from ldm.diffusion.paths import RectifiedFlow
from ldm.diffusion.predictions import Velocity
from ldm.networks import DiT
from ldm.tasks import AutoencoderTask, DiffusionTask

warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")


def tiny_autoencoder(seed=0):
    """Grey 16 x 16 images to 2 x 8 x 8 latents; untrained, but with statistics, as if it were finished."""
    torch.manual_seed(seed)
    autoencoder = KLAutoencoder(1, 2, channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    autoencoder.set_statistics([0.1, -0.2], [0.5, 0.7], 10)
    return autoencoder


def tiny_quantised(quantiser=None, seed=0):
    """The same with a vocabulary, of 16 words unless another is given; untrained."""
    torch.manual_seed(seed)
    quantiser = VQ(16, 2) if quantiser is None else quantiser
    return QuantisedAutoencoder(quantiser, 1, channels=8, channel_multipliers=(1, 2), num_res_blocks=1)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


def one_cycle(optimizer):
    return OneCycleLR(optimizer, max_lr=3e-3, total_steps=100, cycle_momentum=False)


def autoencoder_task(seed=0, **options):
    loss = AutoencoderLoss("l2", kl_weight=1e-3)
    return AutoencoderTask(tiny_autoencoder(seed), loss, **{"optimizer": adam, "lr_scheduler": one_cycle, **options})


def adversarial_task(seed=0, quantiser=None, channels_last=False, learned_logvar=True, **adversarial):
    """An autoencoder with everything that its training may have: a discriminator, a learned variance, code words."""
    torch.manual_seed(seed)
    settings = {"start": 2, "lecam": 0.1, "r1": 0.1, "r1_every": 2, **adversarial}
    term = Adversarial(PatchGAN(1, channels=4, depth=1), **settings)
    autoencoder = tiny_autoencoder(seed) if quantiser is None else tiny_quantised(quantiser, seed)
    kl_weight = 1e-3 if autoencoder.has_spread else 0.0
    loss = AutoencoderLoss("l1", kl_weight, [term], learned_logvar=learned_logvar)
    return AutoencoderTask(
        autoencoder,
        loss,
        optimizer=adam,
        lr_scheduler=one_cycle,
        discriminator_scheduler=halving,
        channels_last=channels_last,
    )


def halving(optimizer):
    return StepLR(optimizer, step_size=2, gamma=0.5)


def diffusion_task(seed=0, net=None, **options):
    torch.manual_seed(seed)
    net = DiT(8, 2, patch_size=4, width=16, depth=2, num_heads=2) if net is None else net
    parts = {
        "net": net,
        "diffusion": Diffusion(RectifiedFlow(), Velocity()),
        "conditioner": Conditioner([Label(10, net.width)]),
        "autoencoder": tiny_autoencoder(),
    }
    return DiffusionTask(**{**parts, "optimizer": adam, "lr_scheduler": one_cycle, **options})


def digit_data(folder, **options):
    """Of `few_digits`: 5 global batches of 12 an epoch, one validation batch of 10."""
    settings = {"batch_size": 12, "size": 16, "channels": 1, "flip": False, "num_workers": 0}
    return ShardData(str(folder / "train"), str(folder / "val"), **{**settings, **options})


def fit(task, data, run, max_steps, callbacks=(), save=None, plugins=(), **options):
    """As the command does it: one run folder, resumed from its newest whole checkpoint."""
    run = Path(run)
    trainer = L.Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            **options,
        },
        max_steps=max_steps,
        default_root_dir=str(run),
        callbacks=[*callbacks, SaveCheckpoints(**{"every_n_steps": 1, "keep": 100, **(save or {})})],
        plugins=[checkpoints.AtomicCheckpointIO(), *plugins],
    )
    trainer.fit(task, datamodule=data, ckpt_path=checkpoints.newest(run))
    return trainer


class Losses(L.Callback):
    """Writes down the loss of each global batch."""

    def __init__(self):
        self.by_batch = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.by_batch[batch["step"]] = outputs["loss"].item()


class Killed(Exception):
    pass


class KillBefore(L.Callback):
    """Fails right before a global batch, as an interrupted process would."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch["step"] == self.batch:
            raise Killed


def differences(one, other, where=""):
    """The places where two checkpoints differ by so much as a bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        lacking = [f"{where}/{key} on one side" for key in one.keys() ^ other.keys()]
        return lacking + [
            d for key in one.keys() & other.keys() for d in differences(one[key], other[key], f"{where}/{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    else:
        same = type(one) is type(other) and one == other
    return [] if same else [f"{where}: {one!r:.60} and {other!r:.60}"]
