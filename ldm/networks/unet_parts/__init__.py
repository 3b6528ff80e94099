"""What a U-Net is made of: kinds of blocks and of attention, which are settings that make layers."""

from ldm.networks.unet_parts.base import UNetAttention, UNetBlock
from ldm.networks.unet_parts.convnext import ConvNeXt
from ldm.networks.unet_parts.linear import Linear
from ldm.networks.unet_parts.residual import Residual
from ldm.networks.unet_parts.transformers import Transformers

__all__ = ["ConvNeXt", "Linear", "Residual", "Transformers", "UNetAttention", "UNetBlock"]
