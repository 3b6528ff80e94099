"""A discriminator that looks through a frozen network."""

import pytest
import torch

from ldm.autoencoders import Adversarial, Autoencoded, DiagonalGaussian, KLAutoencoder
from ldm.autoencoders.discriminators import FeatureDiscriminator
from ldm.nn.features import TimmFeatures

FEATURES = TimmFeatures("test_vit", layers=[1, 3])


def discriminator(**arguments):
    torch.manual_seed(0)
    return FeatureDiscriminator(FEATURES, **{"channels": 8, **arguments})


def images(channels=3, seed=0):
    return torch.rand(2, channels, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_each_place_of_each_map_has_a_logit():
    assert discriminator()(images()).shape == (2, 2 * 4 * 4)
    pyramid = FeatureDiscriminator(TimmFeatures("test_resnet", layers=[1, 2, 3]), channels=8)
    sizes = pyramid.features.sizes()
    assert pyramid(images()).shape == (2, sum((64 // size.stride) ** 2 for size in sizes))


def test_only_the_heads_are_trained_and_saved():
    made = discriminator()
    assert {name.partition(".")[0] for name in made.state_dict()} == {"heads"}
    real = images().requires_grad_()
    made(real).square().sum().backward()
    assert real.grad.any()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert not any(parameter.requires_grad for parameter in FEATURES.net(real.device).parameters())


def test_one_colour_is_as_good_as_three_and_heads_are_as_wide_as_their_maps():
    grey = images(channels=1)
    made = discriminator(in_channels=1).eval()
    torch.testing.assert_close(made(grey), made(grey.expand(-1, 3, -1, -1)))
    assert discriminator(channels=None).heads[0].mix.out_channels == FEATURES.sizes()[0].channels


def test_it_learns_to_tell_images_from_reconstructions_and_tells_the_autoencoder():
    made, real = discriminator(), images()
    fake = torch.nn.functional.avg_pool2d(real, 5, 1, 2).requires_grad_()
    term = Adversarial(made, start=0)
    point = DiagonalGaussian.point(torch.zeros(2, 4, 8, 8))
    seen = Autoencoded(KLAutoencoder(channels=8), real, fake, point)
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    losses = []
    for batch in range(20):
        optimizer.zero_grad()
        losses.append(term.discriminator_terms(seen, batch)["discriminator"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 < losses[0]
    term(seen).backward()
    assert fake.grad.any()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="1 or 3 channels"):
        discriminator(in_channels=4)
    with pytest.raises(ValueError, match="must be odd"):
        discriminator(kernel=2)
