"""The adversarial term: a discriminator that learns beside the autoencoder."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.discriminators import DiffAugment, Discriminator
from ldm.autoencoders.losses.base import LossTerm
from ldm.autoencoders.ranks import averaged

Game = Literal["hinge", "vanilla", "non_saturating"]
MEMORY = 0.99  # of LeCam's moving averages, a global batch


class Adversarial(LossTerm):
    """What a discriminator holds against the reconstructions, and what the discriminator itself has to learn.

    The discriminator begins `warmup` batches before the autoencoder hears it, so that it is not cold then. Both starts
    are numbers of global batches, of which an optimizer step takes as many as gradients are accumulated over.

    Args:
        discriminator: What tells images from reconstructions.
        weight: Its factor in the total, before the balancing.
        start: The first global batch, counted from 0, in which the autoencoder hears it.
        warmup: How many batches earlier the discriminator begins to learn.
        game: "hinge": hinge loss against -D(x'); "vanilla": logistic loss against -D(x'), as latent diffusion calls
            it; "non_saturating": logistic loss against softplus(-D(x')) (Goodfellow et al. 2014).
        adaptive: Balance it by the gradients at the decoder's last weight, times `weight`.
        most: The largest ratio of gradients.
        lecam: Weight of LeCam's regularisation (Tseng et al. 2021, arXiv 2104.03310); 0: none.
        r1: Weight gamma of R1, gamma / 2 E|grad D(x)|^2 (Mescheder et al. 2018, arXiv 1801.04406); 0: none.
        r1_every: Batches between two computations of R1, which then weighs that much more.
        augment: What is done to all images and reconstructions before the discriminator sees them.
    """

    real_mean: Tensor
    fake_mean: Tensor

    def __init__(
        self,
        discriminator: Discriminator,
        weight: float = 0.5,
        start: int = 50_001,
        warmup: int = 0,
        game: Game = "hinge",
        adaptive: bool = True,
        most: float = 1e4,
        lecam: float = 0.0,
        r1: float = 0.0,
        r1_every: int = 1,
        augment: DiffAugment | None = None,
    ) -> None:
        super().__init__("adversarial", weight)
        if game not in ("hinge", "vanilla", "non_saturating"):
            raise ValueError(f'The game is {game!r}: choose "hinge", "vanilla" or "non_saturating".')
        if min(start, warmup, r1_every - 1) < 0 or min(weight, lecam, r1) < 0 or most <= 0:
            raise ValueError("Adversarial's numbers must be 0 or more, r1_every at least 1, and most positive.")
        self.discriminator = discriminator
        self.start, self.game = start, game
        self.learns_from = max(0, start - warmup)
        self.balance = "decoder" if adaptive else "none"
        self.most = most
        self.lecam, self.r1, self.r1_every = lecam, r1, r1_every
        self.augment = augment
        self.register_buffer("real_mean", torch.zeros(()))
        self.register_buffer("fake_mean", torch.zeros(()))

    def weight_at(self, batch: int) -> float:
        return self.weight if batch >= self.start else 0.0

    def check(self, autoencoder: Autoencoder) -> None:
        super().check(autoencoder)
        if self.discriminator.in_channels != autoencoder.in_channels:
            raise ValueError(
                f"The discriminator takes {self.discriminator.in_channels} channel(s) and the autoencoder gives "
                f"{autoencoder.in_channels}: make their in_channels equal."
            )

    def check_files(self) -> None:
        self.discriminator.check_files()

    def learns_at(self, batch: int) -> bool:
        """Whether the discriminator learns in this global batch."""
        return batch >= self.learns_from

    def measured(self) -> bool:
        return False  # the two are only good against each other

    def forward(self, seen: Autoencoded) -> Tensor:
        """The autoencoder's part; no gradient reaches the discriminator."""
        parameters = [p for p in self.discriminator.parameters() if p.requires_grad]
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            logits = self.judge(seen, seen.reconstructions)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
        return (F.softplus(-logits) if self.game == "non_saturating" else -logits).mean()

    def judge(self, seen: Autoencoded, images: Tensor) -> Tensor:
        """The discriminator's logits (B, ...) of images or reconstructions, float32."""
        if self.augment is not None and seen.draws is not None:
            images = self.augment(images, seen.draws)
        return self.discriminator(images).float()

    def discriminator_terms(self, seen: Autoencoded, batch: int) -> dict[str, Tensor]:
        """What the discriminator has to learn, under "discriminator", and what it says; not for the autoencoder."""
        images = seen.images.detach()
        real = self.judge(seen, images)
        fake = self.judge(seen, seen.reconstructions.detach())
        if self.game == "hinge":
            loss = 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())
        else:
            loss = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        if self.lecam:
            loss = loss + self.lecam * self.lecam_penalty(real, fake)
        if self.r1 and batch % self.r1_every == 0:
            loss = loss + self.r1 * self.r1_every * self.gradient_penalty(images)
        return {"discriminator": loss, "logits_real": real.detach().mean(), "logits_fake": fake.detach().mean()}

    def lecam_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """Squared distance of each side's logits from the moving average of the other's, where they lie apart."""
        with torch.no_grad():
            means = averaged(torch.stack([real.mean(), fake.mean()]))
            self.real_mean.lerp_(means[0], 1 - MEMORY)
            self.fake_mean.lerp_(means[1], 1 - MEMORY)
            real_mean, fake_mean = self.real_mean.clone(), self.fake_mean.clone()
        return F.relu(real - fake_mean).square().mean() + F.relu(real_mean - fake).square().mean()

    def gradient_penalty(self, images: Tensor) -> Tensor:
        """Half the squared gradient of the logits with respect to the real images, summed over an image."""
        # Of the kernels of attention only the plain one can be differentiated twice.
        with torch.autocast(images.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            images = images.float().requires_grad_()
            (gradient,) = torch.autograd.grad(self.discriminator(images).sum(), images, create_graph=True)
        return 0.5 * gradient.square().flatten(1).sum(1).mean()
