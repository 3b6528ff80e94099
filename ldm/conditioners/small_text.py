"""A small text encoder that is trained together with the denoiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioners.base import Draws, Embedder, check_dropout
from ldm.conditioners.captions import VOCABULARY, captions_of, check_captions, clip_ids
from ldm.networks.base import Conditioning
from ldm.nn.attention import SelfAttention


class SmallText(Embedder):
    """Captions by a transformer that is trained from scratch with the denoiser, on open_clip's byte-pair words.

    Every word sees every other (no causal mask) and none sees the padding. A dropped row hears the empty caption, so
    the null is what the model makes of "" and an empty caption in the data is one more dropped row.

    Args:
        width: width of the tokens; the network's `context_width`.
        depth: number of transformer blocks.
        num_heads: attention heads, a divisor of `width`.
        context_length: tokens of a caption, start and end among them; what is longer is cut, with a warning.
        vector_width: also give a vector, the mean of the tokens projected to this width, which is the network's own
            `width` (of a U-Net 4 x its `channels`); it starts at 0. Left out, none.
        dropout: probability with which training replaces a caption by the empty one.
        table_width: keep the table of 49,408 words this narrow and project it to `width` (Lan et al. 2019,
            arXiv:1909.11942, section 3.1), where the table would outweigh the rest; left out, `width`.
        convolution: add to each word a depthwise convolution over so many words around it, an odd number, before the
            blocks (as So et al. 2021, arXiv:2109.08668, do within them). What stands side by side in a caption mostly
            belongs together; attention alone takes long to find that out. Left out, none.
    """

    keys = ("captions",)

    def __init__(
        self,
        width: int,
        depth: int = 4,
        num_heads: int = 4,
        context_length: int = 32,
        vector_width: int | None = None,
        dropout: float = 0.1,
        table_width: int | None = None,
        convolution: int | None = None,
    ) -> None:
        super().__init__()
        if context_length < 3:
            raise ValueError(f"A context_length of {context_length} holds no word between start and end: 32 is usual.")
        for name, size in (("depth", depth), ("vector_width", vector_width), ("table_width", table_width)):
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}: it must be at least 1.")
        if convolution is not None and (convolution < 1 or convolution % 2 == 0):
            raise ValueError(f"convolution is {convolution}: it is an odd number of words, one of them in the middle.")
        self.width, self.depth, self.num_heads = width, depth, num_heads
        self.context_length, self.vector_width, self.table_width = context_length, vector_width, table_width
        self.dropout = check_dropout(dropout)
        self.table = nn.Embedding(VOCABULARY, table_width or width)
        self.widen = nn.Linear(table_width, width) if table_width is not None else nn.Identity()
        self.positions = nn.Parameter(torch.empty(context_length, width))
        self.neighbours = None
        if convolution is not None:
            self.neighbours = nn.Conv1d(width, width, convolution, padding="same", groups=width, bias=False)
        self.blocks = nn.ModuleList(TextBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.to_vector = nn.Linear(width, vector_width) if vector_width is not None else None
        self.initialise()

    def initialise(self) -> None:
        """The layers as CLIP's text tower (Radford et al. 2021, arXiv:2103.00020); the vector starts at 0.

        The words are as large as what the blocks add to them. With CLIP's 0.02 every token starts as nearly the same
        mixture of the whole caption, and the network hears which words there are long before which belong together.
        """
        nn.init.normal_(self.table.weight, std=1.0)
        nn.init.normal_(self.positions, std=0.5)
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                scale = 2 * self.depth if name.endswith(("out", "leave")) else 2 if name.endswith("enter") else 1
                width = self.width if name != "widen" else layer.in_features
                nn.init.normal_(layer.weight, std=(scale * width) ** -0.5)
                nn.init.zeros_(layer.bias)
        if self.neighbours is not None:
            nn.init.normal_(self.neighbours.weight, std=self.neighbours.kernel_size[0] ** -0.5)
        if self.to_vector is not None:
            nn.init.zeros_(self.to_vector.weight)

    def forward(self, batch: Mapping[str, Any], drop: Tensor, draws: Draws | None = None) -> Conditioning:
        ids, mask = self.heard(captions_of(batch, len(drop)), drop)  # (B, L) both
        h = self.widen(self.table(ids))  # (B, L, D)
        if self.neighbours is not None:
            h = h + self.neighbours((h * mask[..., None]).transpose(1, 2)).transpose(1, 2)
        h = h + self.positions
        for block in self.blocks:
            h = block(h, mask[:, None, None])
        tokens = self.norm(h)
        if self.to_vector is None:
            return Conditioning(tokens=tokens, mask=mask)
        return Conditioning(vector=self.to_vector(masked_mean(tokens, mask)), tokens=tokens, mask=mask)

    def heard(self, captions: Sequence[str], drop: Tensor) -> tuple[Tensor, Tensor]:
        """Word numbers and mask (B, L) of the captions, and of the empty caption where they are dropped."""
        ids, mask = (x.to(drop.device, non_blocking=True) for x in clip_ids(captions, self.context_length))
        no_ids, no_mask = (x.to(drop.device, non_blocking=True) for x in clip_ids([""], self.context_length))
        return torch.where(drop[:, None], no_ids, ids), torch.where(drop[:, None], no_mask, mask)

    def read(self, key: str, text: str) -> str:
        return text

    def check_asked(self, wish: Mapping[str, Sequence[Any]]) -> None:
        check_captions(wish)


class TextBlock(nn.Module):
    """Attention and a perceptron, each after a norm and around a skip, (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.enter, self.leave = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """`keys` (B, 1, 1, L) bool, True where a token counts."""
        x = x + self.attention(self.norm1(x), keys=keys)
        return x + self.leave(nn.functional.gelu(self.enter(self.norm2(x))))


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, D), the mean of tokens (B, L, D) where mask (B, L) is True."""
    weights = mask[..., None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)
