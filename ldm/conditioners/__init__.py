"""What a model may be asked for: a `Conditioner` is an ordered set of embedders."""

from ldm.conditioners.attributes import Attributes
from ldm.conditioners.base import Conditioner, Draws, Embedder
from ldm.conditioners.clip_image import CLIPImage
from ldm.conditioners.frozen_text import FrozenText
from ldm.conditioners.image_concat import ImageConcat
from ldm.conditioners.label import Label
from ldm.conditioners.low_resolution import LowResolution
from ldm.conditioners.number import Number
from ldm.conditioners.semantic_map import SemanticMap
from ldm.conditioners.size_and_crop import SizeAndCrop
from ldm.conditioners.small_text import SmallText

__all__ = [
    "Attributes",
    "CLIPImage",
    "Conditioner",
    "Draws",
    "Embedder",
    "FrozenText",
    "ImageConcat",
    "Label",
    "LowResolution",
    "Number",
    "SemanticMap",
    "SizeAndCrop",
    "SmallText",
]
