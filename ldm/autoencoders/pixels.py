"""No autoencoder: diffusion in pixels."""

from torch import Tensor

from ldm.autoencoders.base import FROM_ELSEWHERE, Autoencoder
from ldm.autoencoders.gaussian import DiagonalGaussian


class Pixels(Autoencoder):
    """The identity, for a diffusion model in pixels: the latents are the images, in [-1, 1].

    Nothing is trained, nothing is measured (mean 0, std 1), and the posterior is a point but for 3e-7.

    Args:
        in_channels: Channels of the images.
    """

    in_pixels = True
    has_spread = False

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__(in_channels, in_channels, downsample=1)
        self.latent_samples.fill_(FROM_ELSEWHERE)

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        self.check_images(images)
        return DiagonalGaussian.point(images)

    def reconstruct(self, z: Tensor) -> Tensor:
        return z
