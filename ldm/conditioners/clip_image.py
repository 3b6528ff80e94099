"""What an image shows, by the image tower of a CLIP model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.encoders.image_tower import ImageTower, Normalisation
from ldm.conditioners.entries import read_picture, tensor_of
from ldm.networks.base import Conditioning


class CLIPImage(Embedder):
    """The embedding of an image by a frozen CLIP image tower, projected by a trained layer: a model of variations.

    Training gives it the image itself, as in unCLIP (Ramesh et al. 2022, arXiv:2204.06125); a user names a picture as
    `reference`. The embedding has length 1 before the projection. The null is a learned vector, or learned tokens.

    Args:
        model: the model's name in open_clip, such as ViT-B-32.
        weights: a local checkpoint of open_clip's (.safetensors, or one that torch.save wrote); it goes into no
            checkpoint of ours.
        width: width of the vector: the network's `width` (of a U-Net 4 x its `channels`); of tokens its
            `context_width`.
        num_tokens: give so many tokens in place of a vector (IP-Adapter, arXiv:2308.06721, takes 4).
        normalisation: how the model wants its pixels: openai (most), half (SigLIP and ViT-L-14 laion2b_s32b_b82k),
            imagenet (CLIPA), unit (MobileCLIP).
        dropout: probability with which training drops the image.
    """

    keys = ("reference",)
    file_arguments = ("weights",)

    def __init__(
        self,
        model: str,
        weights: str,
        width: int,
        num_tokens: int | None = None,
        normalisation: Normalisation = "openai",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_tokens is not None and num_tokens < 1:
            raise ValueError(f"num_tokens is {num_tokens}: it must be at least 1; leave it out for a vector.")
        self.model, self.weights, self.width, self.num_tokens = model, weights, width, num_tokens
        self.normalisation, self.dropout = normalisation, check_dropout(dropout)
        self.stand_ins = {"reference": "images"}
        self.tower = ImageTower(model, weights, normalisation)
        self.project = nn.Linear(self.tower.width, width * (num_tokens or 1))
        self.null = nn.Parameter(torch.zeros(width * (num_tokens or 1)))

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        images = tensor_of(self, batch, "reference", drop)
        heard = self.null.expand(len(drop), -1)
        if images is not None:
            heard = torch.where(drop[:, None], heard, self.project(self.tower.encode(images)))
        if self.num_tokens is None:
            return Conditioning(vector=heard)
        return Conditioning(tokens=heard.reshape(len(drop), self.num_tokens, self.width))

    def check_data(self, data: Any) -> None:
        if data.provides is not None and not {"images", "reference"} & data.provides:
            raise ValueError(
                f"The embedder CLIPImage looks at images, and {data.shards} holds latents alone: train from the "
                "shards of images that they were made of."
            )
        self.tower.check()

    def fingerprint(self) -> str:
        return self.tower.fingerprint()

    def read(self, key: str, text: str) -> Tensor:
        return read_picture(text, self.tower.side)
