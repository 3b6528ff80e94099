"""The KL-regularised autoencoder of latent diffusion; the defaults are kl-f8, Stable Diffusion's."""

from collections.abc import Sequence

from torch import Tensor, nn

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.conv import Resample, conv_pair
from ldm.autoencoders.gaussian import DiagonalGaussian


class KLAutoencoder(Autoencoder):
    """Convolutional variational autoencoder, Rombach et al. 2022 (arXiv 2112.10752).

    Images shrink by 2**(len(channel_multipliers) - 1); docs/autoencoder.md has the settings of kl-f4 ... kl-f32.

    Args:
        in_channels: Channels of the images.
        latent_channels: Channels of the latents.
        channels: Width of the network at level 0, the images' resolution.
        channel_multipliers: Width of each level in units of `channels`; each level after the first halves the
            resolution.
        num_res_blocks: Residual blocks per level of the encoder; the decoder has one more.
        attention_levels: Levels, counted from 0, with attention after each block.
        dropout: Dropout in the residual blocks.
        checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        middle_attention: Attention in the middle of the encoder and of the decoder; False is the attention-free
            variant, whose cost grows with the image's area only.
        resample: "conv" as published; "space_to_channel" adds the shortcuts of deep-compression autoencoders (Chen et
            al. 2024, arXiv 2410.10733) for factors of 32 and 64; each width must divide 4 times its neighbour's.
    """

    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 4,
        channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_levels: Sequence[int] = (),
        dropout: float = 0.0,
        checkpointing: bool = False,
        middle_attention: bool = True,
        resample: Resample = "conv",
    ) -> None:
        encoder, decoder, downsample = conv_pair(
            in_channels,
            2 * latent_channels,
            latent_channels,
            channels,
            channel_multipliers,
            num_res_blocks,
            attention_levels,
            dropout,
            checkpointing,
            middle_attention,
            resample,
        )
        super().__init__(in_channels, latent_channels, downsample)
        self.encoder = encoder
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = decoder

    @property
    def last_weight(self) -> Tensor:
        return self.decoder.conv_out.weight

    @property
    def last_encoder_weight(self) -> Tensor:
        return self.encoder.conv_out.weight

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        self.check_images(images)
        return DiagonalGaussian.from_moments(self.quant_conv(self.encoder(images)))

    def reconstruct(self, z: Tensor) -> Tensor:
        images: Tensor = self.decoder(self.post_quant_conv(z))
        return images
