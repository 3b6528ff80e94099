"""Frozen text encoders, with weights from local files: `TextEncoder` is the seam, `FrozenText` the embedder."""

from ldm.conditioners.encoders.base import TextEncoder
from ldm.conditioners.encoders.open_clip import OpenCLIPText
from ldm.conditioners.encoders.side_by_side import SideBySide
from ldm.conditioners.encoders.t5 import T5Text
from ldm.text import Text

__all__ = ["OpenCLIPText", "SideBySide", "T5Text", "Text", "TextEncoder"]
