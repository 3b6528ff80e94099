"""Residual blocks of 3x3 convolutions."""

from typing import Literal

from ldm.networks.unet_parts.base import UNetBlock
from ldm.nn.modulated_resnet import ModulatedResBlock


class Residual(UNetBlock):
    """Those of latent diffusion, of ADM with `scale_shift` (arXiv:2105.05233).

    Args:
        scale_shift: the embedding of the noise level scales and shifts the second norm; left out, it is added.
        dropout: probability of dropping an activation before the second convolution; drawn by torch, so that a resumed
            run drops others than one that was not stopped.
        standardised: weight-standardised convolutions (arXiv:1903.10520).
    """

    def __init__(self, scale_shift: bool = False, dropout: float = 0.0, standardised: bool = False) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"A dropout of {dropout} is outside [0, 1): choose 0 to 0.3.")
        self.scale_shift, self.dropout, self.standardised = scale_shift, dropout, standardised

    def block(self, in_channels: int, out_channels: int, embedding_width: int, groups: int | None) -> ModulatedResBlock:
        return ModulatedResBlock(
            in_channels, out_channels, embedding_width, self.scale_shift, self.dropout, groups, self.standardised
        )

    def resampler(
        self, channels: int, embedding_width: int, groups: int | None, way: Literal["down", "up"]
    ) -> ModulatedResBlock:
        return ModulatedResBlock(
            channels, channels, embedding_width, self.scale_shift, self.dropout, groups, self.standardised, way
        )
