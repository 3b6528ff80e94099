"""The representation autoencoder: a frozen vision network encodes, a trained transformer decodes.

Zheng et al. 2025 (arXiv 2510.11690).
"""

import hashlib

import torch.nn.functional as F
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.autoencoders.vit_decoder import ViTDecoder
from ldm.networks.blocks import Parts
from ldm.nn.features import Features
from ldm.nn.standardise import standardised
from ldm.seeding import Draws


class RepresentationAutoencoder(Autoencoder):
    """Latents are the last tokens of a frozen vision transformer; only the decoder is trained.

    The encoder gets the images at the size at which its patches are as many as the latents have places: with patches
    of 14 pixels and `downsample` 16, images of 256 become 224, and latents 16x16. Each token is brought to mean 0 and
    variance 1 over its channels (the network's last norm without its scale and shift, as published), so that one
    `noise_std` suits any encoder. The statistics that `encode` normalises by are per channel, as of every autoencoder;
    the published ones are per channel and place.

    The encoder's weights stay in their file: they are in no checkpoint, an export carries the file, and the
    fingerprint counts them. The defaults are the published decoder, ViT-XL.

    Args:
        encoder: The frozen network; the last of its maps is used. Leave its `size` out: images are resized here.
        in_channels: Channels of the images, 1 or 3.
        downsample: Pixels per latent position along each side, the side of the decoder's patches.
        size: Side of the square images that the decoder is made for; others stretch its positions.
        width: Channels of the decoder's tokens, a multiple of 4 and of `num_heads`.
        depth: Number of its blocks.
        num_heads: Its attention heads.
        mlp_ratio: Hidden width of its perceptrons in units of `width`.
        noise_std: Training decodes latents with added noise, whose standard deviation is drawn for each image as
            |N(0, noise_std^2)|: so the decoder forgives what a diffusion model gets wrong. 0: none.
        checkpointing: Recompute the decoder's blocks in the backward pass: less memory, about a third more time.
    """

    has_spread = False

    def __init__(
        self,
        encoder: Features,
        in_channels: int = 3,
        downsample: int = 16,
        size: int = 256,
        width: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 32 / 9,
        noise_std: float = 0.8,
        checkpointing: bool = False,
    ) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"A vision network sees 1 or 3 channels, and in_channels is {in_channels}.")
        if min(downsample, width, depth, num_heads) < 1 or mlp_ratio <= 0:
            raise ValueError("downsample, width, depth, num_heads and mlp_ratio must be positive.")
        if size < downsample or size % downsample:
            raise ValueError(f"The size {size} is not a multiple of downsample, {downsample}: choose one that is.")
        if noise_std < 0:
            raise ValueError(f"noise_std is {noise_std}: give 0 for no noise, or a positive number.")
        tokens = encoder.sizes()[-1]
        super().__init__(in_channels, tokens.channels, downsample)
        self.encoder, self.encoder_patch = encoder, tokens.stride
        self.noise_std = noise_std
        grid = (size // downsample, size // downsample)
        parts = Parts(width, num_heads, mlp_ratio)
        self.decoder = ViTDecoder(tokens.channels, in_channels, downsample, grid, parts, depth, checkpointing)

    @property
    def last_weight(self) -> Tensor:
        return self.decoder.head.linear.weight

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        self.check_images(images)
        _, rows, columns = self.latent_shape(images.shape[2], images.shape[3])
        size = (rows * self.encoder_patch, columns * self.encoder_patch)
        if images.shape[2:] != size:
            images = F.interpolate(images.float(), size=size, mode="bicubic", antialias=True)
        tokens = self.encoder.maps(images)[-1]
        if tokens.shape[2:] != (rows, columns):
            raise ValueError(
                f"The encoder gives {tokens.shape[2]}x{tokens.shape[3]} tokens where the latents have {rows}x{columns} "
                "places: leave the encoder's size out, and choose a network whose patches cut its images evenly."
            )
        return DiagonalGaussian.point(standardised(tokens))

    def reconstruct(self, z: Tensor) -> Tensor:
        images: Tensor = self.decoder(z)
        return images

    def autoencode(self, images: Tensor, draws: Draws) -> Autoencoded:
        posterior = self.posterior(images)
        z = posterior.mode
        if self.noise_std:
            spread = self.noise_std * draws.normal(1, 1, 1).abs()  # (B, 1, 1, 1)
            z = z + spread * draws.normal(*z.shape[1:])
        return Autoencoded(self, images, self.reconstruct(z), posterior, draws=draws)

    def fingerprint(self) -> str:
        """Of the decoder, the statistics and the encoder's weights and settings; UserError if these are not there."""
        return hashlib.sha256((super().fingerprint() + self.encoder.fingerprint()).encode()).hexdigest()
