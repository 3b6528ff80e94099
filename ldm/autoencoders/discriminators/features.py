"""A discriminator that looks through a frozen vision network, as that of StyleGAN-T.

Sauer et al. 2023 (arXiv 2301.09515), section 3.2; after Projected GANs (Sauer et al. 2021, arXiv 2111.01007).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ldm.autoencoders.discriminators.base import Discriminator
from ldm.nn.features import Features
from ldm.nn.resnet import group_norm
from ldm.nn.standardise import standardised


class FeatureDiscriminator(Discriminator):
    """A small convolutional head on each of the network's maps; a logit for each place of each.

    Only the heads are trained and saved; gradients pass through the network to the images. Each map is brought to mean
    0 and variance 1 over its channels at each place. Not published so: heads convolve in two dimensions, not along the
    row of tokens, and their norms are over groups of channels, which suits any batch, not over the batch.

    Args:
        features: The frozen network and which of its maps to judge by: four of a transformer's, evenly spaced.
        in_channels: Channels of the images, 1 or 3.
        channels: Width of the heads; left out, each is as wide as its map.
        kernel: Side of the second convolution, odd.
    """

    def __init__(self, features: Features, in_channels: int = 3, channels: int | None = None, kernel: int = 3) -> None:
        super().__init__(in_channels)
        if in_channels not in (1, 3):
            raise ValueError(f"A vision network sees 1 or 3 channels, and in_channels is {in_channels}.")
        if kernel < 1 or kernel % 2 == 0 or (channels is not None and channels < 1):
            raise ValueError("FeatureDiscriminator's kernel must be odd and positive, its channels positive.")
        self.features = features
        widths = [size.channels for size in features.sizes()]
        self.heads = nn.ModuleList(FeatureHead(width, channels or width, kernel) for width in widths)

    def check_files(self) -> None:
        self.features.check()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, places of all maps together)."""
        maps = self.features.maps(images)
        return torch.cat([head(standardised(each)) for head, each in zip(self.heads, maps, strict=True)], dim=1)


class FeatureHead(nn.Module):
    """Maps (B, C, h, w) -> logits (B, h w); spectral norms bound the slope of each convolution."""

    def __init__(self, width: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.enter = spectral_norm(nn.Conv2d(width, channels, 1))
        self.norm1 = group_norm(channels)
        self.mix = spectral_norm(nn.Conv2d(channels, channels, kernel, padding=kernel // 2))
        self.norm2 = group_norm(channels)
        self.leave = spectral_norm(nn.Conv2d(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        h = F.leaky_relu(self.norm1(self.enter(maps)), 0.2)  #       (B, channels, h, w)
        h = (h + F.leaky_relu(self.norm2(self.mix(h)), 0.2)) * 0.5**0.5
        logits: Tensor = self.leave(h).flatten(1)
        return logits
