"""Class labels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Conditioner
from ldm.errors import UserError
from ldm.networks.base import Conditioning


class LabelConditioner(Conditioner):
    """One learned vector a class, and one more, at index `num_classes`, for "no class".

    Args:
        num_classes: number of classes; labels are 0 to num_classes - 1.
        width: width of the vector; the network's `width`.
        dropout: probability with which training replaces a label by "no class".
    """

    def __init__(self, num_classes: int, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: a label conditioner needs at least one class.")
        if not 0 <= dropout < 1:
            raise ValueError(f"A label dropout of {dropout} is outside [0, 1): the paper's choice is 0.1.")
        self.num_classes: int = num_classes
        self.dropout = dropout
        self.embedding = nn.Embedding(num_classes + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, batch: Mapping[str, Any], drop: Tensor) -> Conditioning:
        labels = batch.get("labels")
        if labels is None:
            if not bool(drop.all()):
                raise UserError(
                    "The data has no labels and the model is class-conditional: pack a folder with one "
                    "sub-folder per class, or use ldm.conditioners.Unconditional."
                )
            labels = torch.zeros_like(drop, dtype=torch.long)
        return Conditioning(vector=self.embedding(torch.where(drop, self.num_classes, labels)))
