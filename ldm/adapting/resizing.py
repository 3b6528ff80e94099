"""A weight in the shape of a network with other patches or channels, so that the function stays as it was."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate


def resize_matrix(before: int, after: int) -> Tensor:
    """(after**2, before**2), float64: brings a flattened square of side `before` to side `after`.

    Larger ones are interpolated bilinearly, smaller ones are averages over areas, so that either way nothing of a
    constant is lost in going there or back.
    """
    line = enlarging(before, after) if after > before else averaging(before, after)
    return torch.kron(line, line)


def enlarging(before: int, after: int) -> Tensor:
    """(after, before): linear interpolation between the centres of pixels."""
    return interpolate(torch.eye(before, dtype=torch.float64)[:, None], size=after, mode="linear")[:, 0].T


def averaging(before: int, after: int) -> Tensor:
    """(after, before): the share of each new pixel that each old one covers."""
    edges = torch.arange(after + 1, dtype=torch.float64)[:, None] * before / after
    old = torch.arange(before, dtype=torch.float64)
    overlap = torch.minimum(edges[1:], old + 1) - torch.maximum(edges[:-1], old)
    return overlap.clamp(min=0) * after / before


def embedding_for_patches(weight: Tensor, patch_size: int, fresh: Tensor | None = None) -> Tensor:
    """Of a patch embedding (D, C, p, p), the one (D, C, patch_size, patch_size) that hears the same of resized patches.

    For larger patches it gives exactly what the old one gave before resizing; for smaller ones the nearest to it in
    the least squares. FlexiViT's PI-resize (Beyer et al. 2022, arXiv:2212.08013, section 3.4).

    Args:
        weight: the trained weight.
        patch_size: the new side.
        fresh: (D, C, patch_size, patch_size), a new network's weight: as this it hears what no resized patch has,
            the detail that the old patches were too small for. Left out, it is deaf to that, and slow to learn it.
    """
    before = weight.shape[-1]
    if before == patch_size:
        return weight
    matrix = resize_matrix(before, patch_size).to(weight.device)  # (q * q, p * p)
    inverse = torch.linalg.pinv(matrix)
    resized = weight.double().flatten(2) @ inverse
    if fresh is not None:
        detail = fresh.double().flatten(2)
        resized = resized + detail - detail @ matrix @ inverse
    return resized.unflatten(2, (patch_size, patch_size)).to(weight.dtype)


def head_for_patches(rows: Tensor, before: int, after: int) -> Tensor:
    """Of what gives the values of a patch, (before**2 * C, ...), what gives the resized patch (after**2 * C, ...).

    A patch's values are ordered (row, column, channel).
    """
    if before == after:
        return rows
    values = rows.double().unflatten(0, (before**2, -1))
    resized = torch.einsum("qp,p...->q...", resize_matrix(before, after).to(rows.device), values)
    return resized.flatten(0, 1).to(rows.dtype)


def inputs_for_channels(weight: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Of a convolution (D, sum(before), h, w), one (D, sum(after), h, w) that does not hear the channels that are new.

    Args:
        weight: the trained weight.
        before: channels of each part of its input (x_t, an estimate of x0, an image beside it).
        after: channels of the same parts now; a part keeps its first ones.
    """
    parts = []
    for part, count in zip(weight.split(list(before), dim=1), after, strict=True):
        silent = weight.new_zeros(weight.shape[0], max(0, count - part.shape[1]), *weight.shape[2:])
        parts.append(torch.cat([part[:, :count], silent], dim=1))
    return torch.cat(parts, dim=1)


def outputs_for_channels(rows: Tensor, fresh: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """(sum(before), ...) as (sum(after), ...): each part of the output keeps its first channels; the rest is `fresh`.

    Args:
        rows: the trained weight or bias.
        fresh: the new network's own, (sum(after), ...).
        before: channels of each part of the output (the prediction, the variance).
        after: channels of the same parts now.
    """
    parts = []
    for part, own in zip(rows.split(list(before)), fresh.split(list(after)), strict=True):
        kept = min(len(part), len(own))
        parts.append(torch.cat([part[:kept], own[kept:]]))
    return torch.cat(parts)


def patch_head(
    rows: Tensor, fresh: Tensor, patches: tuple[int, int], channels: tuple[Sequence[int], Sequence[int]]
) -> Tensor:
    """The head of a network over patches, (p * p * C, ...), for other patches and channels, (before, after) each."""
    resized = head_for_patches(rows, *patches)
    trained, new = (rearrange(x, "(n c) ... -> c n ...", n=patches[1] ** 2) for x in (resized, fresh))
    return rearrange(outputs_for_channels(trained, new, *channels), "c n ... -> (n c) ...")
