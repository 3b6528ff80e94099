"""MM-DiT, the transformer of Stable Diffusion 3. Esser et al. 2024 (arXiv:2403.03206), section 4."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.networks.base import Conditioning, Network
from ldm.networks.blocks.base import Context
from ldm.networks.blocks.head import AdaptiveHead
from ldm.networks.blocks.hearing import add_vector
from ldm.networks.blocks.joint import JointBlock, LastJointBlock
from ldm.networks.blocks.parts import Parts
from ldm.networks.fits import check_concat, check_shape, check_tokens, check_vector
from ldm.networks.patches import cut, initialize_patches, token_grid, unpatchify
from ldm.networks.positions import Positions, SinCos
from ldm.nn.attention import split_width
from ldm.nn.embeddings import NoiseEmbedding
from ldm.nn.rotary import for_grid, rotary_table, with_still_tokens


class MMDiT(Network):
    """Text and patches are two sequences with weights of their own, joined in every attention.

    The noise level and the vector (a pooled text embedding, classes) shift, scale and gate both streams. In the paper
    width is 64 * depth and num_heads is depth; 24 for the 2 billion weights of SD3 medium.

    Args:
        context_width: channels of the conditioner's tokens.
        input_size: height and width of x_t: one number if they are equal, else (height, width).
        in_channels: channels of x_t; the autoencoder's `latent_channels`.
        patch_size: side of the square of latent values that becomes one token.
        width: channels of a token, a multiple of 4 and of `num_heads`.
        depth: number of joint blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of a block's perceptron, in units of `width`.
        learned_variance: give twice the channels, the second half for a learned variance.
        checkpointing: recompute each block in the backward pass: less memory, about a third more time.
        concat_channels: channels of an image that the conditioner gives beside x_t.
        positions: what tells patches their place, of `ldm.networks.positions`; by default SinCos.
        rope: turn the patches' queries and keys by their row and column; width / num_heads is a multiple of 4.
        swiglu: gated perceptrons of as many weights.
        rms_norm: norms that do not subtract the mean.
        qk_norm: an RMS norm on the queries and keys of each head (section 5.3.2 of the paper).
    """

    pos_embed: Tensor
    rotary: Tensor | None

    def __init__(
        self,
        context_width: int,
        input_size: int | tuple[int, int] = 128,
        in_channels: int = 16,
        patch_size: int = 2,
        width: int = 1536,
        depth: int = 24,
        num_heads: int = 24,
        mlp_ratio: float = 4.0,
        learned_variance: bool = False,
        checkpointing: bool = False,
        concat_channels: int = 0,
        positions: Positions | None = None,
        rope: bool = False,
        swiglu: bool = False,
        rms_norm: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.grid = token_grid(input_size, patch_size)
        if depth < 1:
            raise ValueError(f"depth={depth} leaves no block in which the text is heard; choose at least 1.")
        self.in_channels, self.concat_channels, self.context_width = in_channels, concat_channels, context_width
        self.sample_shape = (in_channels, self.grid[0] * patch_size, self.grid[1] * patch_size)
        self.out_channels = 2 * in_channels if learned_variance else in_channels
        self.patch_size, self.width = patch_size, width
        self.checkpointing = checkpointing
        self.positions = positions or SinCos()
        parts = Parts(width, num_heads, mlp_ratio, swiglu, rms_norm, qk_norm)

        self.patch_embed = nn.Conv2d(in_channels + concat_channels, width, patch_size, stride=patch_size)
        self.positions.install(self, width, self.grid)
        self.noise_embed = NoiseEmbedding(width)
        self.text_embed = nn.Linear(context_width, width)
        self.blocks = nn.ModuleList([*(JointBlock(parts) for _ in range(depth - 1)), LastJointBlock(parts)])
        self.head = AdaptiveHead(parts, patch_size**2 * self.out_channels)
        rotary = rotary_table(split_width(width, num_heads), *self.grid) if rope else None
        self.register_buffer("rotary", rotary, persistent=False)
        self.initialize()

    def initialize(self) -> None:
        """Xavier everywhere, then zero where a block or the head would speak: the network starts as the identity."""
        for module in (self.text_embed, self.blocks, self.head):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        initialize_patches(self.patch_embed)
        for speaker in (*self.blocks, self.head):
            speaker.silence()

    def forward(self, x_t: Tensor, noise_condition: Tensor, cond: Conditioning) -> Tensor:
        assert cond.tokens is not None  # `check` asks for them
        c = add_vector(self.noise_embed(noise_condition), cond)  # (B, D)
        if cond.concat is not None:
            x_t = torch.cat([x_t, cond.concat], dim=1)
        image, grid = cut(x_t, self.patch_embed)
        image = self.positions.add(image, self.pos_embed, self.grid, grid)  # (B, N, D)
        text = self.text_embed(cond.tokens)  # (B, L, D)
        context = Context(rotary=self.turns(grid, text.shape[1]), keys=joint_mask(cond.mask, image.shape[1]))
        for block in self.blocks:
            if self.checkpointing and self.training:
                image, text = checkpoint(block, image, text, c, context, use_reentrant=False)
            else:
                image, text = block(image, text, c, context)
        return unpatchify(self.head(image, c), grid[0], self.patch_size)  # (B, C, H, W)

    def turns(self, grid: tuple[int, int], length: int) -> Tensor | None:
        """The rotary table of `length` tokens of text, which are not turned, and the patches of `grid`."""
        if self.rotary is None:
            return None
        return with_still_tokens(for_grid(self.rotary, self.grid, grid), length)

    def check(self, shape: tuple[int, int, int], cond: Conditioning) -> None:
        check_shape(self.sample_shape, shape)
        check_vector(self.width, cond)
        if cond.tokens is None:
            raise ValueError(
                "MMDiT attends to image and text together, and the conditioner gives no tokens: add an embedder that "
                "gives tokens (of text, say), or use another net."
            )
        check_tokens(self.context_width, cond, "MMDiT", of_block=False)
        check_concat(self.concat_channels, cond, self.sample_shape)


def joint_mask(mask: Tensor | None, num_patches: int) -> Tensor | None:
    """Which tokens of text (B, L) and patches, which all do, count: (B, 1, 1, L + N)."""
    if mask is None:
        return None
    return torch.cat([mask, mask.new_ones(len(mask), num_patches)], dim=1)[:, None, None]
