"""A layer norm of maps, without weights."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def standardised(maps: Tensor) -> Tensor:
    """(B, C, h, w) with mean 0 and variance 1 over the channels at each place.

    Of a vision transformer's tokens it is the network's own last norm, but for its scale and shift.
    """
    tokens = F.layer_norm(rearrange(maps, "b c h w -> b h w c"), maps.shape[1:2], eps=1e-6)
    return rearrange(tokens, "b h w c -> b c h w")
