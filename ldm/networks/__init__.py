"""Denoising networks: forward(x_t, noise_condition, conditioning)."""

from ldm.networks.base import Conditioning, Network
from ldm.networks.dit import DiT
from ldm.networks.mmdit import MMDiT
from ldm.networks.unet import UNet

__all__ = ["Conditioning", "DiT", "MMDiT", "Network", "UNet"]
