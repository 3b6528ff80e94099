"""How far reconstructions are from their images, pixel by pixel and in structure."""

import torch
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.measures.base import Measure, shown
from ldm.autoencoders.ranks import summed

DATA_RANGE = (-1.0, 1.0)
WINDOW = 11  # pixels a side, in which the structural similarity compares


class PixelQuality(Measure):
    """`psnr`, the peak signal-to-noise ratio in dB of all pixels together, and `ssim`, the structural similarity.

    SSIM compares in windows of 11 x 11 pixels, and is left out where the images are smaller.
    """

    def __init__(self) -> None:
        self.psnr = PeakSignalNoiseRatio(DATA_RANGE)
        self.ssim = StructuralSimilarityIndexMeasure(kernel_size=WINDOW, data_range=DATA_RANGE)
        self.windowed = 0  # images with room for a window

    def update(self, seen: Autoencoded) -> None:
        images, reconstructions = shown(seen)
        self.psnr.to(images.device).update(reconstructions, images)
        if min(images.shape[-2:]) >= WINDOW:
            self.windowed += len(images)
            self.ssim.to(images.device).update(reconstructions, images)

    def compute(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {"psnr": self.psnr.compute()}
        if summed(torch.tensor([self.windowed])).item():  # over all ranks, since each has to take part
            ssim = self.ssim.compute()
            assert isinstance(ssim, Tensor)  # no map beside it was asked for
            found["ssim"] = ssim
        return found
