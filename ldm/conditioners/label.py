"""Class labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.class_names import find_class
from ldm.errors import UserError
from ldm.networks.base import Conditioning


class Label(Embedder):
    """One learned vector a class, and one more, at index `num_classes`, for "no class".

    Args:
        num_classes: number of classes; labels are 0 to num_classes - 1.
        width: width of the vector; the network's `width` (of a U-Net 4 x its `channels`).
        dropout: probability with which training replaces a label by "no class".
        as_token: give it as the one token of a sequence, for networks that attend to tokens (as latent diffusion's
            class-conditional U-Net does), in place of a vector; `width` is then the network's `context_width`.

    Attributes:
        names: the name of each class, where the data set had some.
    """

    keys = ("labels",)

    def __init__(self, num_classes: int, width: int, dropout: float = 0.1, as_token: bool = False) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: a label embedder needs at least one class.")
        self.num_classes = num_classes
        self.width = width
        self.dropout = check_dropout(dropout)
        self.as_token = as_token
        self.names: list[str] | None = None
        self.embedding = nn.Embedding(num_classes + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        labels = batch.get("labels", torch.zeros_like(drop, dtype=torch.long))
        vector = self.embedding(torch.where(drop, self.num_classes, labels))  # (B, D)
        return Conditioning(tokens=vector[:, None]) if self.as_token else Conditioning(vector=vector)

    def check_data(self, data: Any) -> None:
        if data.num_classes is None:
            raise ValueError(
                f"The model is class-conditional and {data.shards} has no labels: pack a folder with one sub-folder "
                "per class (of streamed shards set data.num_classes), or leave the embedder Label out of the "
                "conditioner."
            )
        if data.num_classes > self.num_classes:
            raise ValueError(
                f"{data.shards} has {data.num_classes} classes and the embedder Label {self.num_classes}: set its "
                f"num_classes to {data.num_classes}."
            )

    def name_classes(self, names: Sequence[str] | None) -> None:
        self.names = None if names is None else list(names)

    def read(self, key: str, text: str) -> int:
        return find_class(text, self.names)

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        for label in wish.get("labels", ()):
            if not 0 <= label < self.num_classes:
                raise UserError(f"There is no class {label}: the model knows the classes 0 to {self.num_classes - 1}.")
