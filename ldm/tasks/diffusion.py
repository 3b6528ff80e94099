"""Training a denoiser in the latent space of an autoencoder."""

from typing import Any

import torch
from torch import Tensor, nn

from ldm.autoencoders import Autoencoder, DiagonalGaussian
from ldm.conditioners import Conditioner
from ldm.diffusion import Process
from ldm.diffusion.variances import Variance
from ldm.errors import UserError
from ldm.networks import Conditioning, Network
from ldm.seeding import seeded_generator
from ldm.tasks.base import OptimizerFactory, SchedulerFactory, Task

GOLDEN_RATIO = 0.6180339887498949


class DiffusionTask(Task):
    """Trains a network to denoise latents, from latent shards or, encoded on the fly, from images.

    Args:
        net: the denoising network.
        diffusion: the process: path, prediction, what is trained at which times.
        conditioner: what the model may be asked for, and how the network hears it; left out, nothing.
        autoencoder: the trained, frozen autoencoder; usually class_path ldm.runs.load_autoencoder with
            init_args {run: FOLDER}.
        optimizer: the optimizer, as class_path and init_args.
        lr_scheduler: the learning-rate schedule, as class_path and init_args; it steps once an optimizer step.
        seed: seed of noise, timesteps and condition dropout.
        compile: run the network through torch.compile.
        init_from: run folder or export of a diffusion model, or a weight file of another code base (.safetensors, .pt):
            a new run starts from all of its weights that fit, and says which. A resumed run does not look there.
    """

    def __init__(
        self,
        net: Network,
        diffusion: Process,
        autoencoder: Autoencoder,
        conditioner: Conditioner | None = None,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        lr_scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        compile: bool = False,
        init_from: str | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, seed)
        self.net = net
        self.diffusion = diffusion
        self.conditioner = Conditioner() if conditioner is None else conditioner
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.init_from = init_from
        if compile:
            net.compile()

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"net": self.net, "conditioner": self.conditioner, "diffusion": self.diffusion}

    def is_frozen(self, key: str) -> bool:
        return key.startswith("autoencoder.")

    def train(self, mode: bool = True) -> "DiffusionTask":
        super().train(mode)
        self.autoencoder.eval()
        return self

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            try:
                self.diffusion.check_net(self.net.in_channels, self.net.out_channels)
            except ValueError as error:
                raise UserError(str(error)) from None

    def check_data(self, data: Any) -> None:
        if data.contract is not None:
            data.contract.check(self.autoencoder.fingerprint(), data.shards)
            shape = data.shape
        else:
            if data.channels != self.autoencoder.in_channels:
                raise UserError(
                    f"The data gives {data.channels} channel(s) and the autoencoder takes "
                    f"{self.autoencoder.in_channels}: set data.channels to that."
                )
            shape = self.autoencoder.latent_shape(*data.shape[1:])
        self.conditioner.check_data(data)
        self.net.check(shape, self.null_condition(1))

    def check_variance(self, variance: Variance | None) -> None:
        """Raise a ValueError if a reverse step's variance is to be read from a network that has not learned it."""
        if variance is not None and variance.learned and self.net.out_channels == self.net.in_channels:
            raise ValueError(
                f"{type(variance).__name__} reads the variance from the network, and this one was built without "
                "learned_variance: use FixedSmall or FixedLarge."
            )

    def encode(self, batch: dict[str, Any], eps: Tensor) -> Tensor:
        """Latents (B, C, H, W) of a batch, sampled from the posterior with the given noise (B, C, H, W)."""
        if "moments" in batch:
            return DiagonalGaussian.from_moments(batch["moments"]).sample(eps)
        with torch.no_grad():
            return self.autoencoder.encode(batch["images"]).sample(eps)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        noise = self.noise(batch)
        latents = self.encode(batch, noise.normal(*self.net.sample_shape))
        cond = self.conditioner(batch, self.conditioner.drops(noise), noise)
        t = self.diffusion.times(noise.uniform_of_all())[noise.rows]
        losses = self.diffusion.loss(self.net, latents, t, noise.normal(*self.net.sample_shape), cond)
        loss = losses.mean()
        self.learn_times(t, losses.detach())
        self.log("train/loss", loss, prog_bar=True)
        return {"loss": loss, "losses": losses.detach(), "t": t}

    def learn_times(self, t: Tensor, losses: Tensor) -> None:
        """Show the law of timesteps what was trained, the same on every rank."""
        if self.trainer.world_size > 1 and self.diffusion.timesteps.learns:
            t, losses = (torch.as_tensor(self.all_gather(x)).flatten() for x in (t, losses))
        self.diffusion.timesteps.update(t, losses, self.diffusion.path)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The loss at fixed noise: t follows the training law evenly over the set, eps belongs to the sample."""
        places = batch["positions"]
        drawn = [
            torch.randn(2, *self.net.sample_shape, generator=seeded_generator("validation", self.seed, p))
            for p in places.tolist()
        ]
        posterior_eps, eps = torch.stack(drawn, dim=1).to(places.device)
        latents = self.encode(batch, posterior_eps)
        drop = torch.zeros_like(places, dtype=torch.bool)
        t = self.diffusion.quantile(((places + 0.5).double() * GOLDEN_RATIO % 1).float())
        for suffix, swapped in self.weight_versions():
            with swapped:
                losses = self.diffusion.loss(self.net, latents, t, eps, self.conditioner(batch, drop))
            self.log(f"val/loss{suffix}", losses.mean(), batch_size=len(places), sync_dist=True)

    def null_condition(self, batch_size: int) -> Conditioning:
        """The conditioning with every row dropped."""
        return self.conditioner({}, drop=torch.ones(batch_size, dtype=torch.bool, device=self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["autoencoder"] = self.autoencoder.fingerprint()
        checkpoint["encoders"] = self.conditioner.fingerprints()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained_with, given = checkpoint.get("autoencoder"), self.autoencoder.fingerprint()
        if trained_with is None:
            raise UserError(
                "The checkpoint is not of a diffusion model, and the config's model is one: give the config that "
                "belongs to the run folder, or another folder."
            )
        if trained_with != given:
            raise UserError(
                f"The checkpoint was trained in the latent space of autoencoder {trained_with[:12]} and is given "
                f"{given[:12]}: point the autoencoder of the config at the run it was trained with."
            )
        self.conditioner.check_fingerprints(checkpoint.get("encoders", []))
        super().on_load_checkpoint(checkpoint)
