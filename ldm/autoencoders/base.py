"""What every autoencoder is to the rest of ldm: images to latents of mean 0 and variance 1, and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.fingerprint import fingerprint_of
from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.seeding import Draws

FROM_ELSEWHERE = -1  # latent_samples where the statistics were published without their number of images


class Autoencoder(nn.Module, ABC):
    """Images (B, in_channels, H, W) in [-1, 1] to latents (B, latent_channels, H/downsample, W/downsample).

    It owns the mean and the standard deviation of its raw latents, per channel, as buffers: `encode` and
    `decode` speak in normalised latents, `posterior` and `reconstruct` in raw ones (its own training uses these
    two). For half precision run it under `torch.autocast`; the module itself stays in float32.

    Buffers: `latent_mean` and `latent_std` (C,), and `latent_samples`, the number of images they were
    measured over: 0 while nothing is known (mean 0, std 1), -1 for published values whose number is unknown.

    Args:
        in_channels: Channels of the images.
        latent_channels: Channels of the latents.
        downsample: Pixels per latent position along each side.
    """

    in_pixels = False  # whether the latents are the images themselves, so that the density of one is the other's
    has_spread = True  # whether the posterior is wider than a point, so that a KL divergence means something
    borrowed: tuple[str, ...] = ()  # children of another run, with the latents' statistics; neither trained nor saved

    latent_mean: Tensor
    latent_std: Tensor
    latent_samples: Tensor

    def __init__(self, in_channels: int, latent_channels: int, downsample: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_channels = latent_channels
        self.downsample = downsample
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))
        self.register_buffer("latent_samples", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """The distribution of the raw latents. Starts with `check_images`."""

    @abstractmethod
    def reconstruct(self, z: Tensor) -> Tensor:
        """Images, not clipped to [-1, 1], from raw latents."""

    def autoencode(self, images: Tensor, draws: Draws) -> Autoencoded:
        """There and back, as training does it: through a sample of the posterior."""
        posterior = self.posterior(images)
        z = posterior.sample(draws.normal(*posterior.mean.shape[1:]))
        return Autoencoded(self, images, self.reconstruct(z), posterior, draws=draws)

    def examine(self, images: Tensor) -> Autoencoded:
        """There and back, as it is measured: through the mode of the posterior."""
        posterior = self.posterior(images)
        return Autoencoded(self, images, self.reconstruct(posterior.mode), posterior)

    @property
    def last_weight(self) -> Tensor:
        """The decoder's last weight, by whose gradients loss terms are balanced."""
        raise ValueError(f"{type(self).__name__} has no decoder to balance loss terms by: leave them out.")

    @property
    def last_encoder_weight(self) -> Tensor:
        """The same of the encoder."""
        raise ValueError(f"{type(self).__name__} has no encoder to balance loss terms by: leave them out.")

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """The distribution of the normalised latents."""
        return self.posterior(images).normalised(self.latent_mean, self.latent_std)

    def decode(self, latents: Tensor) -> Tensor:
        """Images, not clipped to [-1, 1], from normalised latents."""
        mean, std = (rearrange(x, "c -> 1 c 1 1") for x in (self.latent_mean, self.latent_std))
        return self.reconstruct(latents * std + mean)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) for images of this size; ValueError where a side is not a multiple of `downsample`."""
        f = self.downsample
        if height < f or width < f or height % f or width % f:
            nearest = (max(f, height // f * f), max(f, width // f * f))
            raise ValueError(
                f"This autoencoder needs image sides that are multiples of {f}, got {height}x{width} "
                f"(height x width): resize or crop the images, for example to {nearest[0]}x{nearest[1]}."
            )
        return self.latent_channels, height // f, width // f

    def check_images(self, images: Tensor) -> None:
        """ValueError unless `images` is (B, in_channels, H, W), the sides multiples of `downsample`."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"This autoencoder needs images of shape (B, {self.in_channels}, H, W), "
                f"got {tuple(images.shape)}: convert the images to {self.in_channels} channel(s), "
                "or build the autoencoder with in_channels equal to theirs."
            )
        self.latent_shape(images.shape[2], images.shape[3])

    def set_statistics(
        self,
        mean: Tensor | Sequence[float] | float,
        std: Tensor | Sequence[float] | float,
        num_samples: int | None,
    ) -> None:
        """Sets what `encode` and `decode` normalise with.

        Args:
            mean: Mean of the raw latents, per channel (C,) or one number for all.
            std: Their standard deviation, likewise; a published scale factor s is mean 0 and std 1/s.
            num_samples: Number of images these were measured over; None (stored as -1) where unknown.

        Raises:
            ValueError: If a value is not finite, a std is not positive, or a shape is wrong.
        """
        values = {}
        for name, value in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if tensor.shape not in ((), (self.latent_channels,)):
                raise ValueError(
                    f"The latent {name} has shape {tuple(tensor.shape)}: give one number, "
                    f"or one per latent channel ({self.latent_channels})."
                )
            if not tensor.isfinite().all():
                raise ValueError(f"The latent {name} is not finite ({tensor.tolist()}): measure it again.")
            values[name] = tensor
        if not (values["std"] > 0).all():
            raise ValueError(
                f"The latent std must be positive, got {values['std'].tolist()}: a channel without variance "
                "carries nothing; measure over more images, or train the autoencoder with fewer latent_channels."
            )
        num_samples = FROM_ELSEWHERE if num_samples is None else num_samples
        if num_samples < 1 and num_samples != FROM_ELSEWHERE:
            raise ValueError(f"num_samples is {num_samples}: give the number of images, or None if unknown.")
        self.latent_mean.copy_(values["mean"])
        self.latent_std.copy_(values["std"])
        self.latent_samples.fill_(num_samples)

    def forget_statistics(self) -> None:
        """As a new autoencoder: mean 0, std 1, nothing known."""
        self.latent_mean.zero_()
        self.latent_std.fill_(1.0)
        self.latent_samples.zero_()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the weights and the statistics: latents of equal fingerprints may be mixed.

        The same on every device and after saving and loading; another dtype is another fingerprint.
        """
        return fingerprint_of(self.state_dict())
