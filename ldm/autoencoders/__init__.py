"""Autoencoders: images to latents of zero mean and unit variance, and back."""

from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.autoencoders.kl import KLAutoencoder
from ldm.autoencoders.losses import KL, AutoencoderLoss, LossTerm, Reconstruction
from ldm.autoencoders.pixels import Pixels
from ldm.autoencoders.statistics import LatentStatistics

__all__ = [
    "KL",
    "Autoencoder",
    "AutoencoderLoss",
    "DiagonalGaussian",
    "KLAutoencoder",
    "LatentStatistics",
    "LossTerm",
    "Pixels",
    "Reconstruction",
]
