"""What makes latents code words. A quantiser is one file here with a leaf of `Quantiser`; nothing to register."""

from ldm.autoencoders.quantisers.base import Quantised, Quantiser
from ldm.autoencoders.quantisers.fsq import FSQ
from ldm.autoencoders.quantisers.lfq import LFQ
from ldm.autoencoders.quantisers.vq import VQ

__all__ = ["FSQ", "LFQ", "VQ", "Quantised", "Quantiser"]
