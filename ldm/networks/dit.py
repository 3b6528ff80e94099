"""The diffusion transformer, DiT. Peebles & Xie 2022 (arXiv:2212.09748), and what came after it."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.networks.base import Conditioning, Network
from ldm.networks.blocks import AdaLNZero, BlockKind, Context, Parts
from ldm.networks.fits import check_concat, check_shape, check_tokens, check_vector
from ldm.networks.patches import cut, initialize_patches, token_grid, unpatchify
from ldm.networks.positions import Positions, SinCos
from ldm.nn.attention import split_width
from ldm.nn.embeddings import NoiseEmbedding
from ldm.nn.long_skip import LongSkip
from ldm.nn.rotary import for_grid, rotary_table, with_still_tokens


class DiT(Network):
    """A transformer over patches; `block` says how it hears the conditioning, by default as adaLN-Zero.

    The sizes of the paper (depth, width, num_heads): S 12, 384, 6; B 12, 768, 12; L 24, 1024, 16; XL 28, 1152, 16.
    The label embedding belongs to the conditioner, whose width must be the same. x_t of another height and width than
    `input_size` is taken too, if the patches cut it evenly.

    Args:
        input_size: height and width of x_t: one number if they are equal, else (height, width).
        in_channels: channels of x_t; the autoencoder's `latent_channels`.
        patch_size: side of the square of latent values that becomes one token.
        width: channels of a token, a multiple of 4 and of `num_heads`.
        depth: number of transformer blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of a block's perceptron, in units of `width`.
        learned_variance: give twice the channels, the second half for a learned variance (as the official models).
        checkpointing: recompute each block in the backward pass: less memory, about a third more time.
        block: the kind of block, of `ldm.networks.blocks`: by default AdaLNZero, which hears a vector; those with a
            context_width hear tokens (text) too.
        concat_channels: channels of an image that the conditioner gives beside x_t.
        positions: what tells tokens their place, of `ldm.networks.positions`; by default SinCos.
        rope: turn queries and keys by their row and column (arXiv:2104.09864); width / num_heads is a multiple of 4.
        swiglu: gated perceptrons of as many weights (arXiv:2002.05202).
        rms_norm: norms that do not subtract the mean (arXiv:1910.07467).
        qk_norm: an RMS norm on the queries and keys of each head, against logits that run away in low precision.
        registers: trained tokens that stand in front of the patches and are dropped at the end (arXiv:2309.16588).
        long_skips: join what block i gives to what block depth - 1 - i gets, as U-ViT does (arXiv:2209.12152).
    """

    pos_embed: Tensor
    rotary: Tensor | None

    def __init__(
        self,
        input_size: int | tuple[int, int] = 32,
        in_channels: int = 4,
        patch_size: int = 2,
        width: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        learned_variance: bool = False,
        checkpointing: bool = False,
        block: BlockKind | None = None,
        concat_channels: int = 0,
        positions: Positions | None = None,
        rope: bool = False,
        swiglu: bool = False,
        rms_norm: bool = False,
        qk_norm: bool = False,
        registers: int = 0,
        long_skips: bool = False,
    ) -> None:
        super().__init__()
        self.grid = token_grid(input_size, patch_size)
        if long_skips and depth < 3:
            raise ValueError(f"long_skips join blocks that are not neighbours, and depth is {depth}: choose 3 or more.")
        self.input_size = (self.grid[0] * patch_size, self.grid[1] * patch_size)
        self.in_channels, self.concat_channels = in_channels, concat_channels
        self.sample_shape = (in_channels, *self.input_size)
        self.learned_variance = learned_variance
        self.out_channels = 2 * in_channels if learned_variance else in_channels
        self.patch_size, self.width, self.depth = patch_size, width, depth
        self.num_heads, self.mlp_ratio = num_heads, mlp_ratio
        self.rope, self.swiglu, self.rms_norm, self.qk_norm = rope, swiglu, rms_norm, qk_norm
        self.registers, self.long_skips = registers, long_skips
        self.checkpointing = checkpointing
        self.block = block or AdaLNZero()
        self.positions = positions or SinCos()
        parts = Parts(width, num_heads, mlp_ratio, swiglu, rms_norm, qk_norm)

        self.patch_embed = nn.Conv2d(in_channels + concat_channels, width, patch_size, stride=patch_size)
        self.positions.install(self, width, self.grid)
        self.noise_embed = NoiseEmbedding(width)
        self.blocks = nn.ModuleList(self.block.block(parts) for _ in range(depth))
        self.head = self.block.head(parts, patch_size**2 * self.out_channels)
        self.hearing = self.block.hearing(parts)
        self.skips = nn.ModuleList(LongSkip(width) for _ in range((depth - 1) // 2)) if long_skips else None
        self.register_tokens = nn.Parameter(0.02 * torch.randn(registers, width)) if registers else None
        rotary = rotary_table(split_width(width, num_heads), *self.grid) if rope else None
        self.register_buffer("rotary", rotary, persistent=False)
        self.initialize()

    def initialize(self) -> None:
        """Xavier everywhere, then zero where a block or the head would speak: adaLN-Zero starts as the identity."""
        for module in (self.blocks, self.head):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        initialize_patches(self.patch_embed)
        for speaker in (*self.blocks, self.head):
            speaker.silence()

    def forward(self, x_t: Tensor, noise_condition: Tensor, cond: Conditioning) -> Tensor:
        c, context = self.hearing(self.noise_embed(noise_condition), cond)  # (B, D)
        if cond.concat is not None:
            x_t = torch.cat([x_t, cond.concat], dim=1)
        h, grid = cut(x_t, self.patch_embed)
        h = self.positions.add(h, self.pos_embed, self.grid, grid)  # (B, N, D)
        num_patches = h.shape[1]
        if self.rope or self.registers or context.prefix is not None:
            h, context = self.begin(h, context, grid)  # (B, E + N, D)
        h = self.run(h, c, context) if self.skips is None else self.run_with_skips(h, c, context)
        if h.shape[1] > num_patches:
            h = h[:, -num_patches:]  # (B, N, D)
        return unpatchify(self.head(h, c), grid[0], self.patch_size)  # (B, C, H, W)

    def begin(self, h: Tensor, context: Context, grid: tuple[int, int]) -> tuple[Tensor, Context]:
        """Put registers and the tokens of a block kind in front of h; say how the sequence is turned and masked."""
        rows = h.shape[0]
        front = [] if self.register_tokens is None else [self.register_tokens.expand(rows, -1, -1)]
        front += [] if context.prefix is None else [context.prefix]
        count = sum(tokens.shape[1] for tokens in front)
        if context.prefix_mask is not None:
            mask = context.prefix_mask
            counts = [mask.new_ones(rows, self.registers), mask, mask.new_ones(rows, h.shape[1])]
            context = context._replace(keys=torch.cat(counts, dim=1)[:, None, None])
        if self.rotary is not None:
            table = for_grid(self.rotary, self.grid, grid)
            context = context._replace(rotary=with_still_tokens(table, count))
        return torch.cat([*front, h], dim=1), context

    def run(self, h: Tensor, c: Tensor, context: Context) -> Tensor:
        for block in self.blocks:
            h = self.apply_block(block, h, c, context)
        return h

    def run_with_skips(self, h: Tensor, c: Tensor, context: Context) -> Tensor:
        """The first blocks' results wait for the last blocks, in pairs from the outside in."""
        assert self.skips is not None
        kept: list[Tensor] = []
        second = self.depth - len(self.skips)
        for i, block in enumerate(self.blocks):
            if i >= second:
                h = self.skips[i - second](h, kept.pop())
            h = self.apply_block(block, h, c, context)
            if i < len(self.skips):
                kept.append(h)
        return h

    def apply_block(self, block: nn.Module, h: Tensor, c: Tensor, context: Context) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(block, h, c, context, use_reentrant=False)
        return block(h, c, context)

    def check(self, shape: tuple[int, int, int], cond: Conditioning) -> None:
        check_shape(self.sample_shape, shape)
        check_vector(self.width, cond)
        check_tokens(self.block.context_width, cond, f"DiT with {type(self.block).__name__} blocks")
        check_concat(self.concat_channels, cond, self.sample_shape)
