"""The loss of an autoencoder. A term is one file here with a leaf of `LossTerm`; nothing to register."""

from ldm.autoencoders.losses.adversarial import Adversarial
from ldm.autoencoders.losses.alignment import Alignment
from ldm.autoencoders.losses.base import LossTerm
from ldm.autoencoders.losses.equivariance import Equivariance
from ldm.autoencoders.losses.kl import KL
from ldm.autoencoders.losses.lpips import LPIPS
from ldm.autoencoders.losses.perceptual import Perceptual
from ldm.autoencoders.losses.reconstruction import Reconstruction
from ldm.autoencoders.losses.total import AutoencoderLoss

__all__ = [
    "KL",
    "LPIPS",
    "Adversarial",
    "Alignment",
    "AutoencoderLoss",
    "Equivariance",
    "LossTerm",
    "Perceptual",
    "Reconstruction",
]
