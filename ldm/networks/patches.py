"""Cutting a sample into patches and laying them together again."""

from einops import rearrange
from torch import Tensor, nn


def token_grid(input_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of tokens that patches make of x_t of `input_size`, a side or (height, width)."""
    height, breadth = (input_size, input_size) if isinstance(input_size, int) else input_size
    if patch_size < 1 or height % patch_size or breadth % patch_size:
        raise ValueError(
            f"A patch_size of {patch_size} does not cut an input of {height} x {breadth} evenly: choose a common "
            "divisor of its sides."
        )
    return height // patch_size, breadth // patch_size


def cut(x_t: Tensor, patch_embed: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """(B, C, H, W) -> embedded patches (B, N, D), and how many rows and columns they are."""
    p = patch_embed.stride[0]
    if x_t.shape[2] % p or x_t.shape[3] % p:
        raise ValueError(f"Patches of side {p} do not cut x_t of {x_t.shape[2]} x {x_t.shape[3]} evenly.")
    h = patch_embed(x_t)
    return rearrange(h, "b d h w -> b (h w) d"), (h.shape[2], h.shape[3])


def initialize_patches(patch_embed: nn.Conv2d) -> None:
    """A patch embedding is a linear layer on the flattened patch, and is initialised as one."""
    nn.init.xavier_uniform_(patch_embed.weight.view(patch_embed.out_channels, -1))
    if patch_embed.bias is not None:
        nn.init.zeros_(patch_embed.bias)


def unpatchify(patches: Tensor, rows: int, patch_size: int) -> Tensor:
    """(B, N, p * p * C) in `rows` rows -> (B, C, H, W); a patch's values are ordered (row, column, channel)."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch_size, q=patch_size)
