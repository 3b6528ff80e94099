"""How visible the seams of tiled decoding are."""

import torch
from torch import Tensor

from ldm.autoencoders import Autoencoder
from ldm.autoencoders.tiling import decode_tiled


@torch.no_grad()
def seam(autoencoder: Autoencoder, latents: Tensor, tile: int, overlap: int | None = None) -> float:
    """The largest step that tiling puts between two neighbouring columns of an image, in units of 1/255 of its range.

    Two tiles A and B stand side by side, and each column of the result is (1 - w) A + w B. What is not a step of A or B
    themselves is |B - A| times the change of w: its mean along the column, the largest over all pairs of columns.
    The range is taken as four standard deviations, so that autoencoders without training can be measured too.

    Args:
        autoencoder: any.
        latents: normalised latents (B, C, h, w), of one tile's height and longer than that by at most one tile less
            what the two must share.
        tile: side of a tile in pixels.
        overlap: of the tiles, as of `decode_tiled`.
    """
    width, inner = latents.shape[3], tile // autoencoder.downsample
    if latents.shape[2] > inner or not inner < width < 2 * inner:
        raise ValueError(f"A seam is measured between two tiles: give latents of {inner} rows and up to twice as wide.")
    left, right = autoencoder.decode(latents[..., :inner]).float(), autoencoder.decode(latents[..., -inner:]).float()
    blended = decode_tiled(autoencoder, latents, tile, overlap)
    first = (width - inner) * autoencoder.downsample  # the first column of B; A goes on up to `tile`
    a, b = left[..., first:], right[..., : tile - first]
    apart = b - a
    share = ((blended[..., first:tile] - a) * apart).sum((0, 1, 2)) / (apart**2).sum((0, 1, 2))  # w of each column
    # Before B starts w is 0 and behind A's end it is 1: there too w must not jump.
    share = torch.cat([share.new_zeros(1), share, share.new_ones(1)])
    columns = torch.cat([apart[..., :1], (apart[..., 1:] + apart[..., :-1]) / 2, apart[..., -1:]], dim=-1)
    steps = (columns * share.diff()).abs().mean((0, 1, 2))
    return float(steps.max() / (4 * blended.std()) * 255)
