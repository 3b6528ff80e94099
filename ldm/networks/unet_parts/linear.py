"""Linear attention, and full attention where the map is smallest."""

from torch import nn

from ldm.networks.unet_parts.base import UNetAttention
from ldm.nn.linear_attention import LinearAttention, MapAttention


class Linear(UNetAttention):
    """As in the annotated diffusion and denoising-diffusion-pytorch U-Nets; it hears no tokens.

    Args:
        num_heads: attention heads.
        head_width: channels of a head.
    """

    def __init__(self, num_heads: int = 4, head_width: int = 32) -> None:
        if num_heads < 1 or head_width < 1:
            raise ValueError(f"num_heads={num_heads} and head_width={head_width}: choose both at least 1.")
        self.num_heads, self.head_width = num_heads, head_width

    def check(self, num_levels: int) -> None:
        """They fit any."""

    def attention(
        self, channels: int, level: int, lowest: bool, context_width: int | None, groups: int | None
    ) -> nn.Module:
        layer = MapAttention if lowest else LinearAttention
        return layer(channels, self.num_heads, self.head_width)
