"""The loss's convention: everything per pixel value."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from ldm.autoencoders import Autoencoded, AutoencoderLoss, DiagonalGaussian, KLAutoencoder, LossTerm


class Brightness(LossTerm):
    """A term with a parameter, as a perceptual one would have."""

    def __init__(self, name: str = "brightness", weight: float = 0.5) -> None:
        super().__init__(name, weight)
        self.gain = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, seen: Autoencoded) -> Tensor:
        return self.gain * (seen.reconstructions.mean() - seen.images.mean()).abs()


@pytest.fixture
def seen() -> Autoencoded:
    generator = torch.Generator().manual_seed(0)
    images, reconstructions = torch.randn(2, 3, 3, 16, 24, generator=generator)
    posterior = DiagonalGaussian(*torch.randn(2, 3, 4, 2, 3, generator=generator))
    return Autoencoded(KLAutoencoder(channels=8), images, reconstructions, posterior)


@pytest.mark.parametrize(("reconstruction", "power"), [("l1", 1), ("l2", 2)])
def test_total_is_the_published_sum_over_the_number_of_pixel_values(seen, reconstruction, power) -> None:
    for weight in (1e-6, 1.0):  # 1.0 makes the KL visible
        losses = AutoencoderLoss(reconstruction, kl_weight=weight)(seen)
        summed = ((seen.images - seen.reconstructions).abs() ** power).sum() + weight * seen.posterior.kl().sum()
        torch.testing.assert_close(losses["total"] * (3 * 16 * 24), summed / 3, rtol=1e-6, atol=0)


def test_kl_weight_next_to_a_mean_over_the_latent(seen) -> None:
    losses = AutoencoderLoss(kl_weight=1e-6)(seen)
    latent_values, pixel_values = 4 * 2 * 3, 3 * 16 * 24
    mean_kl = seen.posterior.kl().mean() / latent_values
    torch.testing.assert_close(losses["kl"], mean_kl * latent_values / pixel_values)


def test_every_term_is_named_and_weighted(seen) -> None:
    loss = AutoencoderLoss(terms=[Brightness()])
    losses = loss(seen)
    assert list(losses) == ["reconstruction", "kl", "brightness", "total"]
    assert all(value.shape == () for value in losses.values())
    expected = losses["reconstruction"] + 1e-6 * losses["kl"] + 0.5 * losses["brightness"]
    torch.testing.assert_close(losses["total"], expected)
    assert [name for name, _ in loss.named_parameters()] == ["terms.2.gain"]


def test_perfect_reconstruction_of_a_prior_costs_nothing() -> None:
    images, zeros = torch.randn(2, 3, 8, 8), torch.zeros(2, 4, 1, 1)
    seen = Autoencoded(KLAutoencoder(channels=8), images, images, DiagonalGaussian(zeros, zeros))
    assert AutoencoderLoss()(seen)["total"] == 0


def test_names_must_differ() -> None:
    for name in ("kl", "total"):
        with pytest.raises(ValueError, match="different names"):
            AutoencoderLoss(terms=[Brightness(name)])
    with pytest.raises(ValueError, match='choose "l1", "l2" or "huber"'):
        AutoencoderLoss("l3")  # type: ignore[arg-type]


def test_bfloat16_autocast_gives_a_finite_float32_loss() -> None:
    torch.manual_seed(0)
    model = KLAutoencoder(channels=8, channel_multipliers=[1, 2], num_res_blocks=1)
    images, eps = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        posterior = model.posterior(images)
        reconstructions = model.reconstruct(posterior.sample(eps))
        losses = AutoencoderLoss()(Autoencoded(model, images, reconstructions, posterior))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    losses["total"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())  # type: ignore[union-attr]


def test_it_is_built_from_a_command_line() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(AutoencoderLoss, "loss")
    loss = parser.instantiate_classes(parser.parse_args(["--loss.reconstruction=l2", "--loss.kl_weight=0.1"])).loss
    assert [term.weight for term in loss.terms] == [1.0, 0.1]
