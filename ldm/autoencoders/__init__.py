"""Autoencoders: images to latents of zero mean and unit variance, and back."""

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.base import Autoencoder
from ldm.autoencoders.gaussian import DiagonalGaussian
from ldm.autoencoders.kl import KLAutoencoder
from ldm.autoencoders.losses import (
    KL,
    LPIPS,
    Adversarial,
    Alignment,
    AutoencoderLoss,
    Equivariance,
    LossTerm,
    Perceptual,
    Reconstruction,
)
from ldm.autoencoders.pixels import Pixels
from ldm.autoencoders.quantised import QuantisedAutoencoder
from ldm.autoencoders.representation import RepresentationAutoencoder
from ldm.autoencoders.statistics import LatentStatistics
from ldm.autoencoders.tiny import TinyDecoder

__all__ = [
    "KL",
    "LPIPS",
    "Adversarial",
    "Alignment",
    "Autoencoded",
    "Autoencoder",
    "AutoencoderLoss",
    "DiagonalGaussian",
    "Equivariance",
    "KLAutoencoder",
    "LatentStatistics",
    "LossTerm",
    "Perceptual",
    "Pixels",
    "QuantisedAutoencoder",
    "Reconstruction",
    "RepresentationAutoencoder",
    "TinyDecoder",
]
