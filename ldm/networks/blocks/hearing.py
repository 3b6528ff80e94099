"""What kinds of blocks share of hearing: a sum with the vector, and tokens brought to the network's width."""

import torch
from torch import Tensor, nn

from ldm.networks.base import Conditioning
from ldm.networks.blocks.base import Context, Hearing


class VectorHearing(Hearing):
    """c is the embedding of the noise level and the vector, added."""

    def forward(self, level: Tensor, cond: Conditioning) -> tuple[Tensor, Context]:
        return add_vector(level, cond), Context()


class TextHearing(Hearing):
    """As `VectorHearing`, and the tokens are there to be attended to."""

    def __init__(self, context_width: int, width: int) -> None:
        super().__init__()
        self.embed = ContextEmbedding(context_width, width)

    def forward(self, level: Tensor, cond: Conditioning) -> tuple[Tensor, Context]:
        return add_vector(level, cond), attended(self.embed, cond)


class ContextEmbedding(nn.Sequential):
    """Tokens (B, L, context_width) -> (B, L, width) by a perceptron, as in PixArt-alpha (arXiv:2310.00426)."""

    def __init__(self, context_width: int, width: int) -> None:
        enter, leave = nn.Linear(context_width, width), nn.Linear(width, width)
        super().__init__(enter, nn.GELU("tanh"), leave)
        for linear in (enter, leave):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)


def add_vector(level: Tensor, cond: Conditioning) -> Tensor:
    """The embedding of the noise level (B, D) and, if there is one, the vector."""
    return level if cond.vector is None else level + cond.vector


def attended(embed: nn.Module, cond: Conditioning) -> Context:
    """Embedded tokens and their mask in the shape of attention.

    A row of which no token counts would divide by zero. It gets as many zeros, all of which count, so that it still
    hears nothing of what its tokens are.
    """
    if cond.tokens is None:
        return Context()
    tokens = embed(cond.tokens)
    if cond.mask is None:
        return Context(tokens)
    some = cond.mask.any(dim=1)
    tokens = torch.where(some[:, None, None], tokens, 0.0)
    return Context(tokens, (cond.mask | ~some[:, None])[:, None, None])


def heard_as_tokens(level: Tensor, cond: Conditioning, embed: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """The noise level, the vector and the embedded tokens as one sequence (B, E, D), and which of it counts (B, E)."""
    said = [level] if cond.vector is None else [level, cond.vector]
    sequence = torch.stack(said, dim=1)
    if cond.tokens is None or embed is None:
        return sequence, None
    joined = torch.cat([sequence, embed(cond.tokens)], dim=1)
    if cond.mask is None:
        return joined, None
    return joined, torch.cat([cond.mask.new_ones(sequence.shape[:2]), cond.mask], dim=1)
