"""One resolution of a U-Net on the way down or up, and its middle."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Heard(nn.Module):
    """Layers that share what a pass hears: blocks of (x, embedding), each followed by attention if there is some.

    Args:
        blocks: the blocks.
        attentions: one for each block, or none at all.
        checkpointing: recompute blocks and attention in the backward pass.
        resampler: a layer of (x, embedding) that changes the resolution after them, if there is one.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        attentions: Sequence[nn.Module],
        checkpointing: bool,
        resampler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.checkpointing = checkpointing
        self.resampler = resampler

    def place(self, index: int, h: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Block `index` and the attention after it."""
        if self.checkpointing and self.training:
            return checkpoint(self.run_place, index, h, embedding, context, mask, use_reentrant=False)
        return self.run_place(index, h, embedding, context, mask)

    def run_place(
        self, index: int, h: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        h = self.blocks[index](h, embedding)
        return self.attentions[index](h, context, mask) if index < len(self.attentions) else h


class Resampling(nn.Module):
    """A layer of x alone in the place of one of (x, embedding)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.layer(x)


class Down(Heard):
    """A level on the way down: what comes of each block, and of the `resampler` after them, waits for the way up."""

    def forward(
        self, h: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        kept = []
        for index in range(len(self.blocks)):
            h = self.place(index, h, embedding, context, mask)
            kept.append(h)
        if self.resampler is not None:
            h = self.resampler(h, embedding)
            kept.append(h)
        return h, kept


class Middle(Heard):
    """Two blocks with one attention between them."""

    def forward(self, h: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        for index in range(len(self.blocks)):
            h = self.place(index, h, embedding, context, mask)
        return h


class Up(Heard):
    """A level on the way up: each block takes the newest that waits beside h."""

    def forward(
        self, h: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None, kept: list[Tensor]
    ) -> Tensor:
        """Takes as many from the end of `kept` as it has blocks."""
        for index in range(len(self.blocks)):
            h = self.place(index, torch.cat([h, kept.pop()], dim=1), embedding, context, mask)
        return h if self.resampler is None else self.resampler(h, embedding)
