"""What tells images from reconstructions. A discriminator is one file here with a leaf of `Discriminator`."""

from ldm.autoencoders.discriminators.augmentation import DiffAugment
from ldm.autoencoders.discriminators.base import Discriminator
from ldm.autoencoders.discriminators.features import FeatureDiscriminator
from ldm.autoencoders.discriminators.patch_gan import PatchGAN

__all__ = ["DiffAugment", "Discriminator", "FeatureDiscriminator", "PatchGAN"]
