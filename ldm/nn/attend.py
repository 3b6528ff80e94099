"""Attention itself, by whichever kernel is faster where it runs."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Queries (B, H, N, D), keys and values (B, H, L, D) of H heads -> (B, N, H * D).

    `mask` bool, to be broadcast to (B, H, N, L), True where a key counts; each query needs one that does.
    """
    plain = q.device.type == "cpu" and q.dtype == torch.bfloat16  # there torch's fused kernel is the slower one
    heads = products(q, k, v, mask) if plain else scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return rearrange(heads, "b h n d -> b n (h d)")


def products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, written out; the softmax in float32."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, N, L)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.float().softmax(dim=-1).to(v.dtype) @ v
