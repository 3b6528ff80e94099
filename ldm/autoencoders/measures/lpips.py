"""How far reconstructions are from their images to the eye."""

import torch
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.losses.lpips import LPIPSNetwork, Net
from ldm.autoencoders.measures.base import Measure, shown
from ldm.autoencoders.ranks import summed


class LPIPSDistance(Measure):
    """`lpips`, the mean learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924).

    Args:
        weights: file of torchvision's weights of the backbone, .pth or .safetensors; nothing is downloaded.
        net: "alex" (alexnet, the usual one for measuring), "vgg" (vgg16) or "squeeze" (squeezenet1_1).
    """

    def __init__(self, weights: str, net: Net = "alex") -> None:
        self.network = LPIPSNetwork(weights, net)
        self.sums = torch.zeros(2, dtype=torch.float64)  # of distances, of images

    def check(self) -> None:
        self.network.network(torch.device("cpu"))

    def update(self, seen: Autoencoded) -> None:
        distances = self.network(*shown(seen)).detach().cpu().double()
        self.sums = self.sums + torch.stack([distances.sum(), torch.tensor(float(len(distances)))])

    def compute(self) -> dict[str, Tensor]:
        total, count = summed(self.sums)
        return {"lpips": total / count} if count else {}
