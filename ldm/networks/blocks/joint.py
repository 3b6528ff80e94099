"""The block of MM-DiT: text and image attend to both, each with weights of its own."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu

from ldm.networks.blocks.base import NOTHING, Context
from ldm.networks.blocks.parts import Parts
from ldm.nn.attend import attend
from ldm.nn.attention import HeadNorm
from ldm.nn.modulate import modulate
from ldm.nn.rotary import rotate


class JointBlock(nn.Module):
    """An adaLN-Zero block for each of two sequences, with one attention over both. Esser et al. (arXiv:2403.03206).

    It starts as the identity of both.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.image = Stream(parts)
        self.text = Stream(parts)

    def forward(self, image: Tensor, text: Tensor, c: Tensor, context: Context = NOTHING) -> tuple[Tensor, Tensor]:
        """image (B, N, D), text (B, L, D) -> the same; context.rotary and context.keys are of the text, then image."""
        shift, scale, *image_rest = self.image.modulation(silu(c)).chunk(6, dim=1)
        image_heads = self.image.heads(image, shift, scale)
        shift, scale, *text_rest = self.text.modulation(silu(c)).chunk(6, dim=1)
        text_heads = self.text.heads(text, shift, scale)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(text_heads, image_heads, strict=True))
        if context.rotary is not None:
            q, k = rotate(q, context.rotary), rotate(k, context.rotary)
        attended = attend(q, k, v, context.keys)  # (B, L + N, D)
        length = text.shape[1]
        image = self.image.carry_on(image, attended[:, length:], *image_rest)
        return image, self.text.carry_on(text, attended[:, :length], *text_rest)

    def silence(self) -> None:
        """Close the gates; called after all linear layers have their Xavier weights."""
        for stream in (self.image, self.text):
            nn.init.zeros_(stream.modulation.weight)


class LastJointBlock(nn.Module):
    """The last block of a network: the image still hears the text, which asks nothing and is not carried on."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.image = Stream(parts)
        self.text = HeardStream(parts)

    def forward(self, image: Tensor, text: Tensor, c: Tensor, context: Context = NOTHING) -> tuple[Tensor, Tensor]:
        """As `JointBlock`; the text comes back as it was."""
        shift, scale, *image_rest = self.image.modulation(silu(c)).chunk(6, dim=1)
        q, *image_heads = self.image.heads(image, shift, scale)
        text_heads = self.text.heads(text, *self.text.modulation(silu(c)).chunk(2, dim=1))
        k, v = (torch.cat(pair, dim=2) for pair in zip(text_heads, image_heads, strict=True))
        if context.rotary is not None:
            q, k = rotate(q, context.rotary[:, text.shape[1] :]), rotate(k, context.rotary)
        return self.image.carry_on(image, attend(q, k, v, context.keys), *image_rest), text

    def silence(self) -> None:
        """Close the gates; called after all linear layers have their Xavier weights."""
        for stream in (self.image, self.text):
            nn.init.zeros_(stream.modulation.weight)


class Stream(nn.Module):
    """One sequence's half of a joint block: all of an adaLN-Zero block but the attention itself."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm()
        self.attention = parts.attention()
        self.norm2 = parts.norm()
        self.mlp = parts.mlp()
        self.modulation = nn.Linear(parts.width, 6 * parts.width)

    def heads(self, x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, N, D / heads) of x (B, N, D)."""
        return self.attention.heads(modulate(self.norm1(x), shift, scale))

    def carry_on(
        self, x: Tensor, attended: Tensor, gate1: Tensor, shift2: Tensor, scale2: Tensor, gate2: Tensor
    ) -> Tensor:
        """x (B, N, D) and what its queries found."""
        x = x + gate1[:, None] * self.attention.out(attended)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class HeardStream(nn.Module):
    """A sequence that gives keys and values only."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.num_heads = parts.num_heads
        self.norm1 = parts.norm()
        self.kv = nn.Linear(parts.width, 2 * parts.width)
        self.k_norm = HeadNorm(parts.width // parts.num_heads) if parts.qk_norm else None
        self.modulation = nn.Linear(parts.width, 2 * parts.width)

    def heads(self, x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, L, D / heads) of x (B, L, D)."""
        kv = self.kv(modulate(self.norm1(x), shift, scale))
        k, v = rearrange(kv, "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        return (k if self.k_norm is None else self.k_norm(k)), v
