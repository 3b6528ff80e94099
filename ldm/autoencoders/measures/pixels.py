"""How far reconstructions are from their images, pixel by pixel and in structure."""

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.measures.base import Measure, shown

DATA_RANGE = (-1.0, 1.0)


class PixelQuality(Measure):
    """`psnr`, the peak signal-to-noise ratio in dB of all pixels together, and `ssim`, the structural similarity."""

    def __init__(self) -> None:
        self.metrics = MetricCollection(
            {
                "psnr": PeakSignalNoiseRatio(DATA_RANGE),
                "ssim": StructuralSimilarityIndexMeasure(data_range=DATA_RANGE),
            }
        )

    def update(self, seen: Autoencoded) -> None:
        images, reconstructions = shown(seen)
        self.metrics.to(images.device).update(reconstructions, images)

    def compute(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.metrics.compute()
        return found
