"""Kinds of transformer blocks, one in each file: how a network hears the noise level and the conditioning."""

from ldm.networks.blocks.adaln import AdaLN
from ldm.networks.blocks.adaln_single import AdaLNSingle
from ldm.networks.blocks.adaln_zero import AdaLNZero
from ldm.networks.blocks.adaln_zero_cross import AdaLNZeroCross
from ldm.networks.blocks.base import Block, BlockKind, Context, Hearing
from ldm.networks.blocks.cross_attention import CrossAttention
from ldm.networks.blocks.in_context import InContext
from ldm.networks.blocks.parts import Parts

__all__ = [
    "AdaLN",
    "AdaLNSingle",
    "AdaLNZero",
    "AdaLNZeroCross",
    "Block",
    "BlockKind",
    "Context",
    "CrossAttention",
    "Hearing",
    "InContext",
    "Parts",
]
