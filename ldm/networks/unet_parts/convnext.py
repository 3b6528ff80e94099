"""ConvNeXt blocks."""

from ldm.networks.unet_parts.base import UNetBlock
from ldm.nn.convnext import ModulatedConvNeXt


class ConvNeXt(UNetBlock):
    """Those of "The Annotated Diffusion Model".

    Args:
        expansion: inner channels of a block, in units of its channels.
    """

    def __init__(self, expansion: int = 2) -> None:
        if expansion < 1:
            raise ValueError(f"An expansion of {expansion} leaves a block no channels: choose at least 1.")
        self.expansion = expansion

    def block(self, in_channels: int, out_channels: int, embedding_width: int, groups: int | None) -> ModulatedConvNeXt:
        return ModulatedConvNeXt(in_channels, out_channels, embedding_width, self.expansion)
