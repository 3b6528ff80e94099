"""Any picture that lies over the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.entries import on_grid, read_map, tensor_of
from ldm.conditioners.to_grid import check_grid, downsampler
from ldm.errors import UserError
from ldm.networks.base import Conditioning


class ImageConcat(Embedder):
    """A picture (edges, depth, a sketch, ...), brought to the grid of the latents and joined to x_t.

    Conditioning by concatenation of latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 3.3). The null is
    zeros, the middle of grey.

    Args:
        grid: height and width of x_t.
        in_channels: channels of the picture, 1 (grey) or 3.
        channels: channels that learned convolutions make of it, which is the network's `concat_channels`; left out,
            the picture is only resized and keeps its own.
        factor: the picture is looked at with grid x factor pixels a side: how much smaller latents are than images.
        width: channels of the convolutions.
        key: entry of the batch that it reads: maps, the pictures beside the images.
        dropout: probability with which training drops the picture.
    """

    def __init__(
        self,
        grid: int,
        in_channels: int = 3,
        channels: int | None = None,
        factor: int = 8,
        width: int = 32,
        key: str = "maps",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels}: pictures have 1 (grey) or 3.")
        check_grid(grid, factor)
        self.grid, self.in_channels, self.channels, self.factor = grid, in_channels, channels, factor
        self.width, self.key, self.dropout = width, key, check_dropout(dropout)
        self.keys = (key,)
        self.stem = None
        if channels is not None:
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, width, 3, padding=1), *downsampler(width, channels, factor)
            )

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        pictures = tensor_of(self, batch, self.key, drop)
        if pictures is None:
            shape = (len(drop), self.channels or self.in_channels, self.grid, self.grid)
            return Conditioning(concat=torch.zeros(shape, device=drop.device))
        if pictures.shape[1] != self.in_channels:
            raise UserError(
                f"The embedder ImageConcat takes pictures of {self.in_channels} channel(s), and those in {self.key!r} "
                f"have {pictures.shape[1]}: set its in_channels to that."
            )
        if pictures.dtype == torch.uint8:
            pictures = pictures.float() / 127.5 - 1
        side = self.grid * (1 if self.stem is None else self.factor)
        if pictures.shape[2:] != (side, side):
            pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)
        return Conditioning(concat=on_grid(drop, pictures if self.stem is None else self.stem(pictures)))

    def read(self, key: str, text: str) -> Tensor:
        return read_map(text, self.grid * self.factor, InterpolationMode.BILINEAR)

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        for picture in wish.get(self.key, ()):
            if len(picture) != self.in_channels:
                raise UserError(
                    f"The model takes pictures of {self.in_channels} channel(s) as {self.key}, and one has "
                    f"{len(picture)}: convert it to {'grey' if self.in_channels == 1 else 'RGB'}."
                )
