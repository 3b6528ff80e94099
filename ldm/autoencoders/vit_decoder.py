"""A vision transformer that turns latents into images."""

from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.networks.blocks import Parts
from ldm.networks.blocks.head import PlainHead
from ldm.networks.blocks.in_context import PlainBlock
from ldm.networks.patches import unpatchify
from ldm.networks.positions import SinCos
from ldm.nn.precision import without_autocast


class ViTDecoder(nn.Module):
    """Latents (B, in_channels, h, w) -> images (B, out_channels, h * patch_size, w * patch_size), float32.

    Each place of the latents is a token, and each token becomes a patch, as in the decoder of masked autoencoders (He
    et al. 2021, arXiv 2111.06377). Grids other than `grid` have its positions, stretched.

    Args:
        in_channels: Channels of the latents.
        out_channels: Channels of the images.
        patch_size: Side of a patch.
        grid: Rows and columns of the latents that it is trained on.
        parts: Of what the blocks are made.
        depth: Number of blocks.
        checkpointing: Recompute each block in the backward pass.
    """

    pos_embed: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch_size: int,
        grid: tuple[int, int],
        parts: Parts,
        depth: int,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.grid, self.checkpointing = patch_size, grid, checkpointing
        self.embed = nn.Linear(in_channels, parts.width)
        self.positions = SinCos()
        self.positions.install(self, parts.width, grid)
        self.blocks = nn.ModuleList(PlainBlock(parts) for _ in range(depth))
        self.head = PlainHead(parts, patch_size**2 * out_channels)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        tokens = rearrange(z, "b c h w -> b (h w) c")
        rows, columns = z.shape[2:]
        h = self.positions.add(self.embed(tokens), self.pos_embed, self.grid, (rows, columns))  # (B, N, D)
        nothing = h.new_zeros(len(h), h.shape[2])  # the blocks hear no conditioning
        for block in self.blocks:
            if self.checkpointing and self.training:
                h = checkpoint(block, h, nothing, use_reentrant=False)
            else:
                h = block(h, nothing)
        with without_autocast(h.device):
            patches = self.head(h.to(self.head.linear.weight.dtype), nothing)  # (B, N, patch_size^2 out_channels)
        return unpatchify(patches, rows, self.patch_size)
