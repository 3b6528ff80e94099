"""Perceptual terms: their gradient reaches the reconstructions, and nothing else."""

import pytest
import torch
import torchvision
from torchmetrics.functional.image.lpips import _LPIPS

from ldm.autoencoders import LPIPS, Autoencoded, AutoencoderLoss, DiagonalGaussian, KLAutoencoder, Perceptual
from ldm.autoencoders.losses.perceptual import directions_apart
from ldm.errors import UserError
from ldm.nn.features import TimmFeatures


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory):
    """A file such as torchvision's, of random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def pair(side=64):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, side, side, generator=generator) * 2 - 1
    return images, (images + 0.3 * torch.randn(images.shape, generator=generator)).requires_grad_()


def seen_with(images, reconstructions):
    zeros = torch.zeros(2, 4, 1, 1)
    return Autoencoded(KLAutoencoder(channels=8), images, reconstructions, DiagonalGaussian(zeros, zeros))


@pytest.mark.parametrize("kind", ["lpips", "perceptual"])
def test_the_gradient_reaches_through_it(kind, squeeze):
    """It is the derivative: a small step against it makes the images closer by its squared length times the step."""
    term = LPIPS(str(squeeze), "squeeze") if kind == "lpips" else Perceptual(TimmFeatures("resnet10t", layers=[0, 1]))
    images, reconstructions = pair()
    before = AutoencoderLoss(terms=[term])(seen_with(images, reconstructions))[term.name]
    (gradient,) = torch.autograd.grad(before, reconstructions)
    assert gradient.norm() > 0
    step = 1e-3 * before.item() / gradient.square().sum()
    with torch.no_grad():
        after = term(seen_with(images, reconstructions - step * gradient))
    assert before.item() - after.item() == pytest.approx(1e-3 * before.item(), rel=0.2)
    assert list(term.parameters()) == []  # what it looks through is frozen, and in no checkpoint
    assert term.state_dict() == {}


@pytest.mark.parametrize("kind", ["lpips", "perceptual"])
def test_of_equal_images_it_is_zero_with_a_finite_gradient(kind, squeeze):
    term = LPIPS(str(squeeze), "squeeze") if kind == "lpips" else Perceptual(TimmFeatures("resnet10t", layers=[0, 1]))
    images = torch.zeros(2, 3, 64, 64)
    reconstructions = images.clone().requires_grad_()
    value = term(seen_with(images, reconstructions))
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, reconstructions)
    assert gradient.isfinite().all()


def test_lpips_is_that_of_torchmetrics_with_the_files_weights(squeeze):
    reference = _LPIPS(pretrained=True, net="squeeze", pnet_rand=True)
    given = torch.load(squeeze, weights_only=True)
    for name, weight in reference.net.state_dict().items():  # slices.1.3.squeeze.weight is features.3.squeeze.weight
        weight.copy_(given["features." + name.split(".", 2)[2]])
    images, reconstructions = pair()
    with torch.no_grad():
        expected = reference(images, reconstructions).mean()
        assert torch.allclose(LPIPS(str(squeeze), "squeeze")(seen_with(images, reconstructions)), expected)


def test_directions_apart_is_a_squared_distance_of_unit_vectors():
    one = torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1)
    other = torch.tensor([0.0, 0.2]).reshape(1, 2, 1, 1)
    assert directions_apart(one, 5 * one) == pytest.approx(0.0, abs=1e-7)
    assert directions_apart(one, other) == pytest.approx(2.0, abs=1e-5)
    assert directions_apart(one, -one) == pytest.approx(4.0, abs=1e-5)


def test_weights_of_another_network_are_refused(squeeze, tmp_path):
    with pytest.raises(UserError, match=r"does not hold torchvision's weights of vgg16"):
        LPIPS(str(squeeze), "vgg")(seen_with(*pair()))
    with pytest.raises(UserError, match="nothing is downloaded"):
        LPIPS(str(tmp_path / "none.pth"))(seen_with(*pair()))
    with pytest.raises(ValueError, match="choose one of vgg, alex, squeeze"):
        LPIPS(str(squeeze), "resnet")
