"""The vector-quantised autoencoder of latent diffusion; with a VQ of 8192 codes the defaults are vq-f4."""

from collections.abc import Sequence

from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.conv import Resample, conv_pair
from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.autoencoders.quantisers import Quantiser
from ldm.seeding import Draws


class QuantisedAutoencoder(Autoencoder):
    """Convolutional autoencoder whose latents become words of a finite vocabulary before they are decoded.

    The latents of `posterior` and `encode` are those *before* quantisation: a diffusion model learns these, and
    `reconstruct` and `decode` quantise first (Rombach et al. 2022, section 3.1, as VQ-reg).

    Args:
        quantiser: `VQ`, `FSQ` or `LFQ`; its width is the number of latent channels.
        in_channels: Channels of the images.
        channels: Width of the network at level 0, the images' resolution.
        channel_multipliers: Width of each level in units of `channels`; each level after the first halves the
            resolution.
        num_res_blocks: Residual blocks per level of the encoder; the decoder has one more.
        attention_levels: Levels, counted from 0, with attention after each block.
        dropout: Dropout in the residual blocks.
        checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        middle_attention: Attention in the middle; false makes the network purely convolutional.
        resample: How levels change the resolution, see `KLAutoencoder`.
    """

    has_spread = False

    def __init__(
        self,
        quantiser: Quantiser,
        in_channels: int = 3,
        channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 4),
        num_res_blocks: int = 2,
        attention_levels: Sequence[int] = (),
        dropout: float = 0.0,
        checkpointing: bool = False,
        middle_attention: bool = True,
        resample: Resample = "conv",
    ) -> None:
        width = quantiser.width
        encoder, decoder, downsample = conv_pair(
            in_channels,
            width,
            width,
            channels,
            channel_multipliers,
            num_res_blocks,
            attention_levels,
            dropout,
            checkpointing,
            middle_attention,
            resample,
        )
        super().__init__(in_channels, width, downsample)
        self.encoder = encoder
        self.quant_conv = nn.Conv2d(width, width, 1)
        self.quantiser = quantiser
        self.post_quant_conv = nn.Conv2d(width, width, 1)
        self.decoder = decoder

    @property
    def last_weight(self) -> Tensor:
        return self.decoder.conv_out.weight

    @property
    def last_encoder_weight(self) -> Tensor:
        return self.encoder.conv_out.weight

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        self.check_images(images)
        return DiagonalGaussian.point(self.quantiser.bounded(self.quant_conv(self.encoder(images))))

    def reconstruct(self, z: Tensor) -> Tensor:
        return self.from_words(self.quantiser.quantise(z))

    def from_words(self, words: Tensor) -> Tensor:
        """Images, not clipped, from words (B, C, h, w) of the vocabulary."""
        images: Tensor = self.decoder(self.post_quant_conv(words))
        return images

    def autoencode(self, images: Tensor, draws: Draws) -> Autoencoded:
        posterior = self.posterior(images)
        quantised = self.quantiser.learn(posterior.mode, draws)
        reconstructions = self.from_words(quantised.words)
        return Autoencoded(self, images, reconstructions, posterior, quantised.penalties, quantised.codes, draws)

    def examine(self, images: Tensor) -> Autoencoded:
        posterior = self.posterior(images)
        codes = self.quantiser.codes(posterior.mode)
        reconstructions = self.from_words(self.quantiser.words(codes))
        return Autoencoded(self, images, reconstructions, posterior, codes=codes)
