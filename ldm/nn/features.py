"""Frozen vision networks: what perceptual terms, discriminators and distances between image sets look through."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.atomic import file_sha256
from ldm.errors import UserError
from ldm.weight_files import read_tensors

SEED = 0  # of random weights: the same ones in each process


class MapSize(NamedTuple):
    """The channels of a feature map, and how many pixels of what the network is given one of its places is wide."""

    channels: int
    stride: int


class Features(ABC):
    """What a frozen network makes of images; gradients flow to the images and never to its weights.

    It is no module, so that its weights are in no checkpoint: they stay in their file.

    Attributes:
        width: of the pooled features.
    """

    width: int

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Images (B, 1 or 3, H, W) in [-1, 1] -> feature maps (B, C_i, H_i, W_i), float32, the finest first."""

    @abstractmethod
    def sizes(self) -> list[MapSize]:
        """Of each of the maps, without reading the weights."""

    @abstractmethod
    def pooled(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, H, W) in [-1, 1] -> (B, width), float32."""

    @abstractmethod
    def check(self) -> None:
        """Raise a UserError if the weights are not there."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the weights and of the settings that change what it gives."""


class TimmFeatures(Features):
    """Any network of timm that gives its intermediate features, with weights from a local file.

    Args:
        model: the model's name in timm: vgg16_bn, resnet50, convnext_tiny, vit_small_patch14_dinov2 ...
        weights: a local file of its weights, .safetensors or .pth, or the `ldm export` of a run that trained it
            (`FeaturesTask`); null: random weights, always the same. (Features of a random convolutional network still
            tell sharp from blurred; trained ones tell more.)
        layers: numbers of the feature maps to use, -1 = the last; left out, all of them.
        size: side that images are resized to; left out, they stay as large as they are.
    """

    file_arguments = ("weights",)

    def __init__(
        self, model: str, weights: str | None = None, layers: Sequence[int] | None = None, size: int | None = None
    ) -> None:
        if not timm.is_model(model):
            raise ValueError(f"timm has no model {model!r}: timm.list_models() lists those that there are.")
        self.model, self.weights, self.layers, self.size = model, weights, layers, size
        with torch.device("meta"):
            built: Any = self.built()
        if not hasattr(built, "forward_intermediates"):
            raise ValueError(f"timm's {model} does not give its intermediate features: choose another model.")
        self.width: int = getattr(built, "head_hidden_size", built.num_features)  # some widen before they are pooled
        config = built.pretrained_cfg
        self.mean, self.std = config["mean"], config["std"]
        self._net: nn.Module | None = None
        self._fingerprint: str | None = None

    @property
    def path(self) -> Path | None:
        if self.weights is None:
            return None
        path = Path(self.weights).expanduser()
        return self.parts(path)[0] if path.is_dir() else path

    @classmethod
    def parts(cls, path: Path) -> list[Path]:
        """The files that are read of an export's folder."""
        return [path / "model.safetensors"]

    def check(self) -> None:
        if self.path is not None and not self.path.is_file():
            raise UserError(
                f"The features of {self.model} read their weights from {self.weights}, and there is no such file: "
                "nothing is downloaded, so fetch them yourself and give their path, or the `ldm export` of a run that "
                "trained them, as weights."
            )

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self.check()
            content = "random" if self.path is None else file_sha256(self.path)
            text = json.dumps([self.model, self.layers and list(self.layers), self.size, content])
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprint

    def maps(self, images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, enabled=False):
            net: Any = self.net(images.device)
            layers = None if self.layers is None else list(self.layers)
            found = net.forward_intermediates(
                self.prepared(images), indices=layers, stop_early=True, intermediates_only=True, output_fmt="NCHW"
            )
        return list(found)

    def sizes(self) -> list[MapSize]:
        layers = None if self.layers is None else list(self.layers)
        with torch.device("meta"), torch.no_grad():
            net: Any = self.built()
            side = net.pretrained_cfg["input_size"][-1]
            found = net.forward_intermediates(
                torch.zeros(1, 3, side, side), indices=layers, intermediates_only=True, output_fmt="NCHW"
            )
        return [MapSize(each.shape[1], side // each.shape[2]) for each in found]

    def pooled(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            pooled: Tensor = self.net(images.device)(self.prepared(images))
        return pooled.flatten(1)

    def prepared(self, images: Tensor) -> Tensor:
        """As the network wants them: three colours, of its size, with its normalisation."""
        images = images.float().expand(-1, 3, -1, -1)
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((images + 1) / 2 - mean) / std

    def net(self, device: torch.device) -> nn.Module:
        """The network on a device, read from its file at the first call."""
        if self._net is None:
            self.check()
            with torch.inference_mode(False):  # else its weights could never be part of a graph
                self._net = self.loaded().requires_grad_(False).eval()
        return self._net.to(device)

    def built(self) -> nn.Module:
        """With random weights; a transformer's positions are interpolated to the size of the images."""
        transformer = timm.model_entrypoint(self.model).__module__.endswith("vision_transformer")
        dynamic: dict[str, Any] = {"dynamic_img_size": True} if transformer else {}
        made: nn.Module = timm.create_model(self.model, pretrained=False, num_classes=0, **dynamic)
        return made

    def loaded(self) -> nn.Module:
        if self.path is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(SEED)
                return self.built()
        net = self.built()
        given = {
            name.removeprefix("module.").removeprefix("backbone."): w for name, w in read_tensors(self.path).items()
        }
        own = net.state_dict()
        wrong = [n for n, w in own.items() if n not in given or given[n].shape != w.shape]
        if wrong:
            name = wrong[0]
            found = f"{name} is {tuple(given[name].shape)} there" if name in given else f"{name} is not in it"
            raise UserError(
                f"{self.path} does not hold the weights of timm's {self.model}: {found}, and the model's is "
                f"{tuple(own[name].shape)}. Give the file that belongs to the model."
            )
        net.load_state_dict({name: given[name] for name in own})  # a head for classes may stand beside them
        return net

    def __deepcopy__(self, memo: dict[int, Any]) -> "TimmFeatures":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_net": None}
