"""The decoder of a turned, smaller latent gives the turned, smaller image, or it costs."""

import pytest
import torch

from ldm.autoencoders import (
    LPIPS,
    Adversarial,
    Autoencoder,
    DiagonalGaussian,
    Equivariance,
    KLAutoencoder,
    Perceptual,
    Pixels,
    QuantisedAutoencoder,
    Reconstruction,
)
from ldm.autoencoders.discriminators import PatchGAN
from ldm.autoencoders.losses.equivariance import transformed
from ldm.autoencoders.quantisers import FSQ
from ldm.nn.features import TimmFeatures
from ldm.tasks.base import BatchNoise


def images(height=16, width=24):
    return torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def draws(step=0, rows=None):
    return BatchNoise(seed=0, step=step, rows=torch.arange(4) if rows is None else rows, global_batch=4)


class Blocks(Autoencoder):
    """Pixels in blocks: latents that turn with the image, but not what is inside of their channels."""

    def __init__(self):
        super().__init__(3, 12, 2)

    def posterior(self, images):
        return DiagonalGaussian.point(torch.nn.functional.pixel_unshuffle(images, 2))

    def reconstruct(self, z):
        return torch.nn.functional.pixel_shuffle(z, 2)


def test_it_is_zero_for_what_is_equivariant_and_not_for_what_is_not():
    term = Equivariance()
    for step in range(8):
        assert term(Pixels(3).autoencode(images(), draws(step))) < 1e-5
        seen = Blocks().autoencode(images(), draws(step))
        assert (seen.reconstructions - seen.images).abs().max() < 1e-5
        assert term(seen) > 0.01


def test_transformations_turn_by_each_angle_shrink_down_to_the_smallest_and_are_the_batchs_own(monkeypatch):
    sizes, turns = set(), set()

    def noted(maps, size, turn):
        if maps.shape[2:] == (16, 32):
            sizes.add(size)
            turns.add(turn)
        return transformed(maps, size, turn)

    monkeypatch.setattr("ldm.autoencoders.losses.equivariance.transformed", noted)
    term = Equivariance(smallest=0.25)
    for step in range(60):
        ranks = [
            term(Pixels(3).autoencode(images(16, 32)[rows], draws(step, rows))) for rows in torch.arange(4).chunk(2)
        ]
        assert max(ranks) < 1e-5
    assert turns == {1, 2, 3}
    assert {rows for rows, _ in sizes} == set(range(4, 17))
    assert all(columns in (2 * rows - 1, 2 * rows, 2 * rows + 1) for rows, columns in sizes)
    sizes.clear()
    for step in range(4):
        Equivariance(smallest=1.0)(Pixels(3).autoencode(images(16, 32), draws(step)))
    assert sizes == {(16, 32)}


def test_it_is_a_function_of_the_step():
    torch.manual_seed(0)
    model, term = KLAutoencoder(channels=8, channel_multipliers=[1, 2], num_res_blocks=1), Equivariance()
    once, again, later = (term(model.autoencode(images(), draws(step))).item() for step in (1, 1, 2))
    assert once == again != later


@pytest.mark.parametrize("quantised", [False, True])
def test_gradients_reach_encoder_and_decoder_past_quantisation_too(quantised):
    torch.manual_seed(0)
    size = {"channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1}
    model = QuantisedAutoencoder(FSQ([8, 5]), **size) if quantised else KLAutoencoder(**size)
    Equivariance()(model.autoencode(images(), draws())).backward()
    assert model.last_weight.grad.any()
    assert model.last_encoder_weight.grad.any()


def test_the_error_is_measured_by_any_terms_of_reconstruction():
    torch.manual_seed(0)
    model = KLAutoencoder(channels=8, channel_multipliers=[1, 2], num_res_blocks=1)
    perceptual = Perceptual(TimmFeatures("test_resnet", layers=[1]), weight=3.0)
    each = [
        Equivariance(terms=terms)(model.autoencode(images(64, 64), draws()))
        for terms in ([Reconstruction()], [perceptual], [Reconstruction(), perceptual])
    ]
    torch.testing.assert_close(each[0] + each[1], each[2])
    torch.testing.assert_close(Equivariance()(model.autoencode(images(64, 64), draws())), each[0])


def test_what_cannot_be_is_refused():
    for smallest in (0.0, 1.1):
        with pytest.raises(ValueError, match="smallest lie"):
            Equivariance(smallest=smallest)
    for terms, name in (([], "none"), ([LPIPS("vgg.pth"), Adversarial(PatchGAN())], "adversarial")):
        with pytest.raises(ValueError, match=name):
            Equivariance(terms=terms)
    assert not Equivariance().measured()
    with pytest.raises(ValueError, match="training batch"):
        Equivariance()(Pixels(3).examine(images()))
