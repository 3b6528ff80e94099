"""LPIPS, the learned perceptual distance."""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.losses.base import LossTerm
from ldm.errors import UserError
from ldm.weight_files import read_tensors

Net = Literal["vgg", "alex", "squeeze"]
TORCHVISION = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}


class LPIPSNetwork:
    """torchmetrics' LPIPS (Zhang et al. 2018, arXiv 1801.03924) with a backbone from a local file. It is no module.

    The calibration of the channels comes with torchmetrics, the backbone's weights do not.

    Args:
        weights: File of torchvision's weights of the backbone, .pth or .safetensors.
        net: "vgg" (torchvision's vgg16), "alex" (alexnet) or "squeeze" (squeezenet1_1).
    """

    def __init__(self, weights: str, net: Net = "vgg") -> None:
        if net not in TORCHVISION:
            raise ValueError(f"LPIPS's net is {net!r}: choose one of {', '.join(TORCHVISION)}.")
        self.weights, self.net = weights, net
        self._network: nn.Module | None = None

    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances (B,) of images (B, 1 or 3, H, W) in [-1, 1], in float32, with gradients to both."""
        with torch.autocast(one.device.type, enabled=False):
            network = self.network(one.device)
            distances: Tensor = network(*(x.float().expand(-1, 3, -1, -1) for x in (one, other)))
        return distances.flatten()

    def network(self, device: torch.device) -> nn.Module:
        """On a device, read from its file at the first call."""
        if self._network is None:
            with torch.inference_mode(False):
                self._network = self.loaded().requires_grad_(False).eval()
        return self._network.to(device)

    def loaded(self) -> nn.Module:
        from torchmetrics.functional.image.lpips import _LPIPS

        path = Path(self.weights).expanduser()
        given = read_tensors(path, lambda name: "features." in name)
        given = {name.partition("features.")[2]: weight for name, weight in given.items()}
        network: Any = _LPIPS(pretrained=True, net=self.net, pnet_rand=True)
        # slice1.0.weight, of squeezenet slices.0.0.weight: what follows the slice is torchvision's own name.
        own = {name: re.sub(r"^slices?\.?\d+\.", "", name) for name in network.net.state_dict()}
        try:
            network.net.load_state_dict({name: given[theirs] for name, theirs in own.items()})
        except (KeyError, RuntimeError):
            raise UserError(
                f"{path} does not hold torchvision's weights of {TORCHVISION[self.net]}: give the file that "
                f"torchvision.models.{TORCHVISION[self.net]} is loaded from."
            ) from None
        made: nn.Module = network
        return made

    def check(self) -> None:
        """Raise a UserError if the weights are not there."""
        if not Path(self.weights).expanduser().is_file():
            raise UserError(
                f"LPIPS reads the weights of {TORCHVISION[self.net]} from {self.weights}, and there is no such file: "
                "nothing is downloaded, so fetch torchvision's file yourself and give its path, or use Perceptual."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "LPIPSNetwork":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_network": None}


class LPIPS(LossTerm):
    """The learned perceptual distance; weight 1 beside a mean absolute error is latent diffusion's.

    Args:
        weights: File of torchvision's weights of the backbone, .pth or .safetensors.
        net: "vgg" (torchvision's vgg16, the usual one for training), "alex" (alexnet) or "squeeze" (squeezenet1_1).
        weight: Its factor in the total.
    """

    in_likelihood = True
    file_arguments = ("weights",)

    def __init__(self, weights: str, net: Net = "vgg", weight: float = 1.0) -> None:
        super().__init__("lpips", weight)
        self.network = LPIPSNetwork(weights, net)

    def check_files(self) -> None:
        self.network.check()

    def forward(self, seen: Autoencoded) -> Tensor:
        return self.network(seen.images, seen.reconstructions).mean()
