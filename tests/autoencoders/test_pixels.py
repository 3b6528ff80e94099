"""Pixels is the identity."""

import torch

from ldm.autoencoders import Pixels


def test_images_come_through_unchanged():
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    autoencoder = Pixels(3)
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    latents = autoencoder.encode(images).sample(eps)
    assert (latents - images).abs().max() < 3e-6
    assert torch.equal(autoencoder.decode(images), images)
    assert autoencoder.latent_shape(5, 7) == (3, 5, 7)


def test_nothing_is_trained_and_two_of_a_kind_are_one():
    assert list(Pixels().parameters()) == []
    assert Pixels(1).fingerprint() == Pixels(1).fingerprint() != Pixels(3).fingerprint()
