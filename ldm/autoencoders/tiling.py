"""Large images in tiles: memory that does not grow with the image, and no visible seams; images of any size.

An image is cut into tiles of one size that overlap. Each tile goes through the autoencoder as an image of its own, and
neighbours are blended in the middle of their overlap, off their borders, where padding shows. A tile
has its own statistics in every group norm and its own attention, so the result is near that of the whole image and not
equal to it: details agree, brightness may drift slowly from tile to tile. Exact statistics would take a pass over all
tiles for each norm of the network, 30 in the decoder of kl-f8, and are not offered.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.gaussian import DiagonalGaussian

TILE = 512  # pixels


@dataclass(frozen=True)
class Cut:
    """How one side of a map is cut into tiles, in latent positions.

    Attributes:
        starts: where each tile starts.
        tile: positions a tile.
        overlap: positions that neighbours share at least.
        length: positions of the side.
    """

    starts: Sequence[int]
    tile: int
    overlap: int
    length: int

    @classmethod
    def of(cls, length: int, tile: int, overlap: int) -> "Cut":
        """As few tiles as there can be, evenly spread; one where the side is no longer than a tile."""
        if length <= tile:
            return cls([0], length, 0, length)
        last = math.ceil((length - tile) / (tile - overlap))
        return cls([round(i * (length - tile) / last) for i in range(last + 1)], tile, overlap, length)

    def weights(self, scale: int) -> Tensor:
        """(number of tiles, tile * scale): the share of each tile at its places, `scale` to a position.

        All shares at a place add up to 1. One tile gives way to the next in a half cosine over three quarters of an
        overlap, in the middle of what they share; it is shorter only where three tiles would meet.
        """
        spacings = [after - before for before, after in itertools.pairwise(self.starts)]
        ramp = scale * max(1e-6, min(0.75 * self.overlap, *spacings, self.tile))
        shares = []
        for number, start in enumerate(self.starts):
            places = start * scale + torch.arange(self.tile * scale) + 0.5
            share = torch.ones(self.tile * scale)
            if number > 0:
                share = share * _rise(places, scale * (self.starts[number - 1] + self.tile + start) / 2, ramp)
            if number + 1 < len(self.starts):
                share = share * (1 - _rise(places, scale * (start + self.tile + self.starts[number + 1]) / 2, ramp))
            shares.append(share)
        return torch.stack(shares)


def _rise(places: Tensor, middle: float, ramp: float) -> Tensor:
    """0 to 1 around `middle`, over `ramp` places."""
    progress = ((places - middle) / ramp + 0.5).clamp(0, 1)
    return (1 - (math.pi * progress).cos()) / 2


@torch.no_grad()
def decode_tiled(
    autoencoder: Autoencoder, latents: Tensor, tile: int = TILE, overlap: int | None = None, batch_size: int = 1
) -> Tensor:
    """What `autoencoder.decode` does, tile by tile: images (B, in_channels, H, W), not clipped, at least float32.

    Args:
        autoencoder: Any; its own precision, device and autocast.
        latents: Normalised latents (B, C, h, w).
        tile: Side of a tile in pixels, a multiple of the autoencoder's `downsample`.
        overlap: Pixels that neighbours share at least, a multiple too and at most half a tile; left out, a quarter.
        batch_size: Tiles, of whichever images, that are decoded at once.

    Raises:
        ValueError: `tile` or `overlap` does not fit.
    """
    rows, columns = _cuts(autoencoder, latents.shape[2], latents.shape[3], tile, overlap)
    return _blend(autoencoder.decode, latents, (rows, columns), 1, autoencoder.downsample, batch_size)


@torch.no_grad()
def encode_tiled(
    autoencoder: Autoencoder, images: Tensor, tile: int = TILE, overlap: int | None = None, batch_size: int = 1
) -> DiagonalGaussian:
    """What `autoencoder.encode` does, tile by tile; means and log-variances are blended.

    Args:
        autoencoder: Any.
        images: (B, in_channels, H, W), the sides multiples of `downsample`; see `padded` for others.
        tile: As of `decode_tiled`.
        overlap: As of `decode_tiled`.
        batch_size: Tiles, of whichever images, that are encoded at once.

    Raises:
        ValueError: `tile`, `overlap` or the images do not fit.
    """
    autoencoder.check_images(images)
    _, height, width = autoencoder.latent_shape(images.shape[2], images.shape[3])
    cuts = _cuts(autoencoder, height, width, tile, overlap)
    moments = _blend(
        lambda part: autoencoder.encode(part).moments(), images, cuts, autoencoder.downsample, 1, batch_size
    )
    return DiagonalGaussian.from_moments(moments)


@torch.no_grad()
def autoencode_any_size(
    autoencoder: Autoencoder, images: Tensor, tile: int = TILE, overlap: int | None = None, batch_size: int = 1
) -> Tensor:
    """Images (B, in_channels, H, W) of any size, there and back through the most likely latents, at the same size."""
    height, width = images.shape[2:]
    latents = encode_tiled(autoencoder, padded(images, autoencoder.downsample), tile, overlap, batch_size).mode
    return decode_tiled(autoencoder, latents, tile, overlap, batch_size)[:, :, :height, :width]


def encoding(autoencoder: Autoencoder, tile: int | None) -> Callable[[Tensor], DiagonalGaussian]:
    """`autoencoder.encode`, or the same in tiles of so many pixels; ValueError where they do not fit."""
    if tile is None:
        return autoencoder.encode
    check_tile(autoencoder, tile)
    return partial(encode_tiled, autoencoder, tile=tile)


def decoding(autoencoder: Autoencoder, tile: int | None) -> Callable[[Tensor], Tensor]:
    """`autoencoder.decode`, or the same in tiles of so many pixels; ValueError where they do not fit."""
    if tile is None:
        return autoencoder.decode
    check_tile(autoencoder, tile)
    return partial(decode_tiled, autoencoder, tile=tile)


def padded(images: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) made longer at the bottom and on the right until both sides are multiples of `multiple`.

    The image is mirrored there; where a side has too few pixels for that, its last ones are repeated. So an image
    smaller than `multiple` becomes one of that size.
    """
    down, right = (-side % multiple for side in images.shape[2:])
    for pad, side, place in ((right, images.shape[3], (0, right, 0, 0)), (down, images.shape[2], (0, 0, 0, down))):
        if pad:
            images = F.pad(images, place, mode="reflect" if pad < side else "replicate")
    return images


def check_tile(autoencoder: Autoencoder, tile: int, overlap: int | None = None) -> int:
    """The overlap in pixels, a quarter of the tile where it is None; ValueError where one of them does not fit."""
    f = autoencoder.downsample
    if tile < 2 * f or tile % f:
        nearest = max(2 * f, round(tile / f) * f)
        raise ValueError(
            f"A tile of {tile} pixels does not suit an autoencoder that makes one latent of {f}x{f} pixels: take a "
            f"multiple of {f} from {2 * f} on, such as {nearest}."
        )
    overlap = tile // 4 // f * f if overlap is None else overlap
    if overlap < 0 or overlap % f or 2 * overlap > tile:
        raise ValueError(
            f"Tiles of {tile} pixels cannot overlap by {overlap}: take a multiple of {f} that is at most {tile // 2}."
        )
    return overlap


def _cuts(autoencoder: Autoencoder, height: int, width: int, tile: int, overlap: int | None) -> tuple[Cut, Cut]:
    """The cuts of a latent map of this size."""
    f = autoencoder.downsample
    shared = check_tile(autoencoder, tile, overlap) // f
    return Cut.of(height, tile // f, shared), Cut.of(width, tile // f, shared)


def _blend(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    cuts: tuple[Cut, Cut],
    scale_in: int,
    scale_out: int,
    batch_size: int,
) -> Tensor:
    """The blended outputs of `function` on the tiles of x, `batch_size` at a time.

    `scale_in` and `scale_out` are the pixels per latent position of x and of the output.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give at least 1.")
    rows, columns = cuts
    tall, wide = rows.weights(scale_out).to(x.device), columns.weights(scale_out).to(x.device)
    places = itertools.product(range(len(x)), range(len(rows.starts)), range(len(columns.starts)))
    blended: Tensor | None = None
    for some in _batches(places, batch_size):
        tiles = [x[image][_window(rows, row, columns, column, scale_in)] for image, row, column in some]
        made = function(torch.stack(tiles))
        made = made.to(torch.promote_types(made.dtype, torch.float32))
        if blended is None:
            size = (rows.length * scale_out, columns.length * scale_out)
            blended = made.new_zeros(len(x), made.shape[1], *size)
        for (image, row, column), part in zip(some, made, strict=True):
            window = _window(rows, row, columns, column, scale_out)
            blended[image][window] += part * tall[row][:, None] * wide[column]
    assert blended is not None
    return blended


def _window(rows: Cut, row: int, columns: Cut, column: int, scale: int) -> tuple[slice, slice, slice]:
    top, left = rows.starts[row] * scale, columns.starts[column] * scale
    return slice(None), slice(top, top + rows.tile * scale), slice(left, left + columns.tile * scale)


def _batches(places: Iterator[tuple[int, int, int]], size: int) -> Iterator[list[tuple[int, int, int]]]:
    while some := list(itertools.islice(places, size)):
        yield some
