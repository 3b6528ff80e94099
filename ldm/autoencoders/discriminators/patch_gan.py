"""The patch discriminator of pix2pix (Isola et al. 2017, arXiv 1611.07004), as latent diffusion uses it."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ldm.autoencoders.discriminators.base import Discriminator
from ldm.nn.resnet import group_norm

Norm = Literal["group", "spectral", "batch", "none"]


class PatchGAN(Discriminator):
    """4x4 convolutions with leaky ReLU; each logit sees a patch of 70 pixels (with three strided layers).

    Args:
        in_channels: Channels of the images.
        channels: Width of the first layer; each further one is twice as wide, up to 8 times.
        depth: Number of layers that halve the resolution.
        norm: "group", which suits any batch; "spectral", which bounds the slope of each layer (Miyato et al. 2018,
            arXiv 1802.05957); "batch", as published, whose statistics are those of the batch on one device; "none".
    """

    def __init__(self, in_channels: int = 3, channels: int = 64, depth: int = 3, norm: Norm = "group") -> None:
        super().__init__(in_channels)
        if min(in_channels, channels, depth) < 1:
            raise ValueError("PatchGAN's in_channels, channels and depth must be at least 1.")
        if norm not in ("group", "spectral", "batch", "none"):
            raise ValueError(f'PatchGAN\'s norm is {norm!r}: choose "group", "spectral", "batch" or "none".')
        self.norm, self.depth = norm, depth
        widths = [channels * min(2**i, 8) for i in range(depth + 1)]
        layers = [self.convolution(in_channels, widths[0], stride=2, normalised=False), nn.LeakyReLU(0.2)]
        for i in range(depth):
            last = i == depth - 1
            layers += [self.convolution(widths[i], widths[i + 1], stride=1 if last else 2), nn.LeakyReLU(0.2)]
        layers.append(self.convolution(widths[-1], 1, stride=1, normalised=False))
        self.layers = nn.Sequential(*layers)

    def convolution(self, wide_in: int, wide: int, stride: int, normalised: bool = True) -> nn.Module:
        """With the initial weights of pix2pix, N(0, 0.02), and its norm."""
        conv = nn.Conv2d(wide_in, wide, 4, stride, padding=1, bias=not normalised or self.norm in ("spectral", "none"))
        nn.init.normal_(conv.weight, 0.0, 0.02)
        if self.norm == "spectral":
            return spectral_norm(conv)
        if self.norm == "none" or not normalised:
            return conv
        norm = group_norm(wide) if self.norm == "group" else nn.BatchNorm2d(wide, track_running_stats=False)
        nn.init.normal_(norm.weight, 1.0, 0.02)
        return nn.Sequential(conv, norm)

    def check_size(self, height: int, width: int) -> None:
        least = 3 * 2**self.depth
        if min(height, width) < least:
            raise ValueError(
                f"PatchGAN with depth {self.depth} needs images of at least {least} pixels a side, and these are "
                f"{height}x{width}: give it a smaller depth."
            )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits
