"""Denoising networks: forward(x_t, noise_condition, conditioning)."""

from ldm.networks.base import Conditioning, Network
from ldm.networks.dit import DiT

__all__ = ["Conditioning", "DiT", "Network"]
