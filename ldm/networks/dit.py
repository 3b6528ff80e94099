"""The diffusion transformer, DiT with adaLN-Zero. Peebles & Xie 2022 (arXiv:2212.09748)."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from ldm.networks.base import Conditioning, Network
from ldm.nn.attention import SelfAttention
from ldm.nn.embeddings import NoiseEmbedding, grid_sinusoids


class DiT(Network):
    """A transformer over patches whose layer norms are scaled, shifted and gated by the conditioning.

    The sizes of the paper (depth, width, num_heads): S 12, 384, 6; B 12, 768, 12; L 24, 1024, 16; XL 28, 1152, 16.
    The label embedding belongs to the `LabelConditioner`, whose width must be the same.

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
    """

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
    ) -> None:
        super().__init__()
        height, breadth = (input_size, input_size) if isinstance(input_size, int) else input_size
        if patch_size < 1 or height % patch_size or breadth % patch_size:
            raise ValueError(
                f"A patch_size of {patch_size} does not cut an input of {height} x {breadth} evenly: choose a common "
                "divisor of its sides."
            )
        self.in_channels = in_channels
        self.sample_shape = (in_channels, height, breadth)
        self.out_channels = 2 * in_channels if learned_variance else in_channels
        self.patch_size = patch_size
        self.width = width
        self.checkpointing = checkpointing

        self.patch_embed = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
        rows, columns = height // patch_size, breadth // patch_size
        self.register_buffer("pos_embed", grid_sinusoids(width, rows, columns), persistent=False)
        self.noise_embed = NoiseEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(depth))
        self.head = Head(width, patch_size**2 * self.out_channels)
        self.initialize()

    def initialize(self) -> None:
        """Xavier everywhere, then zero where a block or the head would speak: the network starts as the identity."""
        for module in (self.blocks, self.head):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        # A patch embedding is a linear layer on the flattened patch, and is initialised as one.
        nn.init.xavier_uniform_(self.patch_embed.weight.view(self.width, -1))
        for silent in (self.patch_embed.bias, self.head.linear.weight):
            nn.init.zeros_(silent)  # type: ignore[arg-type]
        for modulated in (*self.blocks, self.head):
            nn.init.zeros_(modulated.modulation.weight)

    def forward(self, x_t: Tensor, noise_condition: Tensor, cond: Conditioning) -> Tensor:
        c = self.noise_embed(noise_condition)  # (B, D)
        if cond.vector is not None:
            c = c + cond.vector
        h = rearrange(self.patch_embed(x_t), "b d h w -> b (h w) d") + self.pos_embed  # (B, N, D)
        for block in self.blocks:
            if self.checkpointing and self.training:
                h = checkpoint(block, h, c, use_reentrant=False)
            else:
                h = block(h, c)  # (B, N, D)
        return self.unpatchify(self.head(h, c))  # (B, C, H, W)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """(B, N, p * p * C) -> (B, C, H, W)."""
        p, rows = self.patch_size, self.sample_shape[1] // self.patch_size
        return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=p, q=p)

    def check(self, shape: tuple[int, int, int], cond: Conditioning) -> None:
        if shape != self.sample_shape:
            raise ValueError(
                f"The network takes samples of {self.sample_shape} and the data gives {shape}: set the net's "
                f"in_channels to {shape[0]} and its input_size to {list(shape[1:])}."
            )
        if cond.vector is not None and cond.vector.shape[1] != self.width:
            raise ValueError(
                f"The conditioner's width is {cond.vector.shape[1]} and the network's {self.width}: make them equal."
            )
        if cond.tokens is not None or cond.concat is not None:
            raise ValueError("DiT hears a vector (labels), neither tokens nor concatenated images: use another net.")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, D), shift and scale (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention, then a perceptron, each modulated before and gated after by c (adaLN-Zero, section 3.2)."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(silu(c)).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class Head(nn.Module):
    """A modulated norm and a linear layer back to patches, (B, N, D) -> (B, N, out)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, out)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(silu(c)).chunk(2, dim=1)
        return self.linear(modulate(self.norm(x), shift, scale))
