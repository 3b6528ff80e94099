"""The frozen image tower of a CLIP model, with weights from a local file."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.atomic import file_sha256
from ldm.conditioners.encoders.clip_weights import check_keys, is_visual
from ldm.conditioners.encoders.open_clip import model_config
from ldm.errors import UserError
from ldm.weight_files import read_tensors

Normalisation = Literal["openai", "imagenet", "half", "unit"]
NORMALISATIONS = {  # mean and standard deviation of each colour, of values from 0 to 1
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class ImageTower:
    """The image tower of any model that open_clip knows. It is no module, see `TextEncoder`.

    Args:
        model: the model's name in open_clip.
        weights: a local checkpoint of open_clip's, whole or of the image tower alone.
        normalisation: how the model wants its pixels.

    Attributes:
        width: of the embedding.
        side: of the square images that it looks at, in pixels.
    """

    def __init__(self, model: str, weights: str, normalisation: Normalisation) -> None:
        self.config = model_config(model)
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation is {normalisation!r}: choose one of {', '.join(NORMALISATIONS)}.")
        self.model, self.weights, self.normalisation = model, weights, normalisation
        self.width: int = self.config["embed_dim"]
        side = self.config["vision_cfg"].get("image_size", 224)
        self.side: int = side if isinstance(side, int) else side[0]
        self._tower: nn.Module | None = None
        self._fingerprint: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.weights).expanduser()

    def check(self) -> None:
        """Raise a UserError if the weights are not there."""
        if not self.path.is_file():
            raise UserError(
                f"The image tower of {self.model} reads its weights from {self.weights}, and there is no such file: "
                "nothing is downloaded, so fetch them yourself and give their path as weights."
            )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the weights and of the settings that change what it gives."""
        if self._fingerprint is None:
            self.check()
            described = [self.config["vision_cfg"], self.config.get("quick_gelu", False), self.normalisation]
            text = json.dumps([*described, file_sha256(self.path)], sort_keys=True)
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprint

    def encode(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [-1, 1] -> (B, width) float32, of length 1, without gradients."""
        device = images.device
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            if self._tower is None:
                self.check()
                self._tower = self.load().requires_grad_(False).eval()
            self._tower.to(device)
            return F.normalize(self._tower(self.prepared(images)).float(), dim=-1)

    def prepared(self, images: Tensor) -> Tensor:
        """As the tower wants them: of its side and with its normalisation."""
        images = images.float().expand(-1, 3, -1, -1)
        if images.shape[2:] != (self.side, self.side):
            size = (self.side, self.side)
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        mean, std = (images.new_tensor(values)[:, None, None] for values in NORMALISATIONS[self.normalisation])
        return ((images + 1) / 2 - mean) / std

    def load(self) -> nn.Module:
        """The tower, on the CPU. (`create_model` would build the text tower too.)"""
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        vision = CLIPVisionCfg(**{**self.config["vision_cfg"], "timm_model_pretrained": False})
        tower: nn.Module = _build_vision_tower(self.width, vision, self.config.get("quick_gelu", False))
        state = image_weights(read_tensors(self.path))
        check_keys(tower, state, self.path, self.model, part="image tower")
        tower.load_state_dict(state)
        return tower

    def __deepcopy__(self, memo: dict[int, Any]) -> "ImageTower":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tower": None}


def image_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the image tower by its own names; all of them where the file holds nothing else."""
    named = {name.removeprefix("module."): value.float() for name, value in state.items()}
    own = {name.removeprefix("visual."): value for name, value in named.items() if is_visual(name)}
    return own or named
