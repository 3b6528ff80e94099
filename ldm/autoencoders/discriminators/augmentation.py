"""What is done to images before a discriminator sees them. Zhao et al. 2020 (arXiv 2006.10738)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.seeding import Draws


class DiffAugment:
    """Colours, a shift and a hole, drawn for each image; images and reconstructions alike, with gradients to them.

    A discriminator that sees few images many times can then not learn them by heart.

    Args:
        colour: Change brightness, saturation and contrast.
        shift: Shift by up to this part of each side; what comes in is grey, the value 0. 0: not at all.
        cutout: Side of a square hole, as a part of each side. 0: none.
        share: Part of the images to which each of these is done.
    """

    def __init__(self, colour: bool = True, shift: float = 0.125, cutout: float = 0.5, share: float = 1.0) -> None:
        if not (0 <= shift < 1 and 0 <= cutout <= 1 and 0 <= share <= 1):
            raise ValueError("DiffAugment's shift, cutout and share are parts of a whole: give numbers from 0 to 1.")
        self.colour, self.shift, self.cutout, self.share = colour, shift, cutout, share

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape, not clipped."""
        if self.colour:
            changed = recoloured(images, *(per_image(draws.uniform()) for _ in range(3)))
            images = torch.where(per_image(draws.uniform()) < self.share, changed, images)
        if self.shift:
            moved = shifted(images, draws.uniform(), draws.uniform(), self.shift)
            images = torch.where(per_image(draws.uniform()) < self.share, moved, images)
        if self.cutout:
            hole = holes(images, draws.uniform(), draws.uniform(), self.cutout)
            images = images.masked_fill(hole & (per_image(draws.uniform()) < self.share), 0.0)
        return images


def per_image(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]


def recoloured(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brighter by -1/2 to 1/2, 0 to 2 times as saturated, 1/2 to 3/2 times as much contrast, by numbers in [0, 1)."""
    images = images + brightness - 0.5
    grey = images.mean(1, keepdim=True)
    images = grey + 2.0 * saturation * (images - grey)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (0.5 + contrast) * (images - middle)


def shifted(images: Tensor, down: Tensor, right: Tensor, most: float) -> Tensor:
    """By whole pixels, up to `most` of a side either way, by numbers (B,) in [0, 1)."""
    height, width = images.shape[2:]
    reach = (round(most * height), round(most * width))
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    rows = ((2 * reach[0] + 1) * down).long()[:, None] + torch.arange(height, device=images.device)  # (B, H)
    columns = ((2 * reach[1] + 1) * right).long()[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def holes(images: Tensor, down: Tensor, right: Tensor, side: float) -> Tensor:
    """(B, 1, H, W) bool, True in a rectangle around a place given by numbers (B,) in [0, 1); edges cut it off."""
    inside = []
    for length, centre in zip(images.shape[2:], (down, right), strict=True):
        distance = (torch.arange(length, device=images.device) - (length * centre).long()[:, None]).abs()
        inside.append(2 * distance < side * length)
    return (inside[0][:, :, None] & inside[1][:, None])[:, None]
