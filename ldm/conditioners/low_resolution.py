"""A smaller version of the image, which the model is to enlarge."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.entries import on_grid, parse_numbers, read_picture, tensor_of
from ldm.errors import UserError
from ldm.networks.base import Conditioning
from ldm.nn.number_embedding import NumberEmbedding
from ldm.seeding import seeded_generator

LEVELS = 1000.0  # a level of 0 to 1 as sinusoids hear it


class LowResolution(Embedder):
    """A picture `factor` times smaller, noised to a level that the network is told, joined to x_t.

    Training makes it of the image, averaging factor x factor pixels, and noises it: sqrt(1 - s^2) low + s eps, with a
    level s drawn evenly from [0, max_noise]. A cascade's later models stand the errors of its earlier ones by this
    (conditioning augmentation, Ho et al. 2021, arXiv:2106.15282, section 4.2). The null is zeros and a learned vector.

    A user names the small picture as `low_res`, and a level as `low_res_level` (0 unless said: the picture is taken as
    it is; the higher, the more the model makes up). The noise of a level is then the same in every picture.

    Args:
        size: side of the images in pixels.
        factor: how many times smaller the picture is, a divisor of `size`.
        grid: height and width of x_t.
        width: width of the vector; the network's `width` (of a U-Net 4 x its `channels`).
        max_noise: highest level, between 0 and 1.
        channels: channels of the images, 1 (grey) or 3; the network's `concat_channels`.
        dropout: probability with which training drops the picture.
    """

    keys = ("low_res",)

    def __init__(
        self,
        size: int,
        factor: int,
        grid: int,
        width: int,
        max_noise: float = 0.5,
        channels: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if factor < 2 or size % factor:
            raise ValueError(f"factor is {factor}: it must be at least 2 and divide the size {size}.")
        if not 0 <= max_noise <= 1:
            raise ValueError(f"max_noise is {max_noise}: it must be between 0 and 1, such as 0.5.")
        self.size, self.factor, self.grid, self.width = size, factor, grid, width
        self.max_noise, self.channels, self.dropout = max_noise, channels, check_dropout(dropout)
        self.stand_ins, self.defaults = {"low_res": "images"}, {"low_res_level": 0.0}
        self.level = NumberEmbedding(1, width)
        self.null = nn.Parameter(torch.zeros(width))

    @property
    def side(self) -> int:
        """Of the small picture, in pixels."""
        return self.size // self.factor

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        low = self.picture(batch, drop)
        if low is None:
            concat = torch.zeros(len(drop), self.channels, self.grid, self.grid, device=drop.device)
            return Conditioning(vector=self.null.expand(len(drop), -1), concat=concat)
        level = self.levels(batch, drop, draws)  # (B,)
        eps = self.usual_noise(drop) if draws is None else draws.normal(*low.shape[1:])
        s = level[:, None, None, None]
        low = (1 - s**2).sqrt() * low + s * eps
        if self.side != self.grid:
            low = F.interpolate(low, size=(self.grid, self.grid), mode="bilinear", antialias=True)
        vector = self.level(LEVELS * level[:, None])
        return Conditioning(vector=torch.where(drop[:, None], self.null, vector), concat=on_grid(drop, low))

    def picture(self, batch: Mapping[str, Any], drop: Tensor) -> Tensor | None:
        """The small picture (B, C, side, side) in [-1, 1]."""
        images = tensor_of(self, batch, "low_res", drop)
        if images is None:
            return None
        if images.shape[1] != self.channels or images.shape[2] not in (self.size, self.side):
            raise UserError(
                f"The embedder LowResolution takes images of {self.channels} channel(s) and {self.size} pixels a side, "
                f"and is given {list(images.shape[1:])}: set its channels and size to those of the data."
            )
        return images if images.shape[2] == self.side else F.avg_pool2d(images, self.factor)

    def levels(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None) -> Tensor:
        """(B,) how far each is noised."""
        if draws is not None:
            return self.max_noise * draws.uniform()
        level = tensor_of(self, batch, "low_res_level", drop)
        return torch.zeros(len(drop), device=drop.device) if level is None else level.float()

    def usual_noise(self, drop: Tensor) -> Tensor:
        """What a level adds where nothing is to be random, the same for every row."""
        generator = seeded_generator("low resolution", 0)
        return torch.randn(self.channels, self.side, self.side, generator=generator).to(drop.device)

    def check_data(self, data: Any) -> None:
        if data.provides is not None and not {"images", "low_res"} & data.provides:
            raise ValueError(
                f"The embedder LowResolution makes small pictures of the images, and {data.shards} holds latents "
                "alone: train from the shards of images that they were made of."
            )

    def read(self, key: str, text: str) -> Any:
        if key == "low_res_level":
            return parse_numbers(key, text, 1)[0]
        return read_picture(text, self.side, self.channels)

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        for level in wish.get("low_res_level", ()):
            if not 0 <= level <= self.max_noise or math.isnan(level):
                raise UserError(f"low_res_level is {level}: the model knows 0 to {self.max_noise:g}.")
