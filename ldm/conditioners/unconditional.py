"""No condition at all."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldm.conditioners.base import Conditioner
from ldm.networks.base import Conditioning


class Unconditional(Conditioner):
    """For models of a data set as a whole: the network hears the noise level alone."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, batch: Mapping[str, Any], drop: Tensor) -> Conditioning:
        return Conditioning()
