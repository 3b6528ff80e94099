"""What a model may be asked for: labels, or nothing."""

from ldm.conditioners.base import Conditioner
from ldm.conditioners.label import LabelConditioner
from ldm.conditioners.unconditional import Unconditional

__all__ = ["Conditioner", "LabelConditioner", "Unconditional"]
