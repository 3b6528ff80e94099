"""A class for each pixel."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.entries import check_below, on_grid, read_map, tensor_of
from ldm.conditioners.to_grid import check_grid, downsampler
from ldm.errors import UserError
from ldm.networks.base import Conditioning


class SemanticMap(Embedder):
    """A map of classes, brought to the grid of the latents by learned convolutions and joined to x_t.

    Semantic synthesis of latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 4.3.2). The null is zeros.

    Args:
        num_classes: number of classes; the map holds 0 to num_classes - 1, and `ignore`.
        grid: height and width of x_t.
        channels: channels that are joined to x_t; the network's `concat_channels`.
        factor: the map is looked at with grid x factor pixels a side: how much smaller latents are than images.
        width: channels of the convolutions.
        ignore: value of pixels of which nothing is known.
        dropout: probability with which training drops the map.
    """

    keys = ("maps",)

    def __init__(
        self,
        num_classes: int,
        grid: int,
        channels: int = 4,
        factor: int = 8,
        width: int = 32,
        ignore: int = 255,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not 1 <= num_classes <= 256:
            raise ValueError(f"num_classes is {num_classes}: a map has 1 to 256.")
        check_grid(grid, factor)
        self.num_classes, self.grid, self.channels, self.factor = num_classes, grid, channels, factor
        self.width, self.ignore, self.dropout = width, ignore, check_dropout(dropout)
        # A look-up of each pixel's class is a 1 x 1 convolution of its one-hot vector, without num_classes channels.
        self.classes = nn.Embedding(num_classes + 1, width, padding_idx=num_classes)
        self.down = downsampler(width, channels, factor)

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        maps = tensor_of(self, batch, "maps", drop)
        if maps is None:
            return Conditioning(concat=torch.zeros(len(drop), self.channels, self.grid, self.grid, device=drop.device))
        if maps.shape[1] != 1:
            raise UserError(
                "The embedder SemanticMap reads one class a pixel, and the maps are pictures in colour: store them "
                "as PNGs of grey values or with a palette, or use ImageConcat."
            )
        side = self.grid * self.factor
        if maps.shape[2:] != (side, side):
            maps = F.interpolate(maps.float(), size=(side, side), mode="nearest-exact")
        classes = maps[:, 0].long()  #                                                        (B, S, S)
        known = classes != self.ignore
        check_below(self, "maps", classes, known & ~drop[:, None, None], self.num_classes)
        classes = torch.where(known & ~drop[:, None, None], classes, self.num_classes)
        h = self.classes(classes).permute(0, 3, 1, 2)  #                                      (B, width, S, S)
        return Conditioning(concat=on_grid(drop, self.down(h)))  #                            (B, C, grid, grid)

    def read(self, key: str, text: str) -> Tensor:
        return read_map(text, self.grid * self.factor)

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        for values in wish.get("maps", ()):
            values = values.long()  # bytes cannot be compared with 256
            known = values[(values < self.num_classes) | (values == self.ignore)]
            if len(values) != 1 or known.numel() < values.numel():
                raise UserError(
                    f"The map is to hold the classes 0 to {self.num_classes - 1} as grey values or palette indices "
                    f"({self.ignore}: not known), and holds others: give such a PNG."
                )
