"""Latents that resemble what a frozen network sees."""

import pytest
import torch

from ldm.autoencoders import (
    Alignment,
    Autoencoded,
    AutoencoderLoss,
    DiagonalGaussian,
    KLAutoencoder,
    RepresentationAutoencoder,
)
from ldm.autoencoders.losses.alignment import cosine_gap, distance_gap
from ldm.nn.features import TimmFeatures
from ldm.nn.standardise import standardised

FEATURES = TimmFeatures("test_vit", layers=[-1])


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(**arguments):
    torch.manual_seed(0)
    return KLAutoencoder(channels=8, channel_multipliers=[1] * 5, num_res_blocks=1, **arguments)


def seen(model=None, images=None):
    model = model or autoencoder()
    images = maps(2, 3, 64, 64).clamp(-1, 1) if images is None else images
    posterior = model.posterior(images)
    return Autoencoded(model, images, model.reconstruct(posterior.mode), posterior)


def test_gaps_are_zero_within_the_margins_and_linear_beyond():
    one = torch.tensor([1.0, 0.0])[None, :, None, None]
    for cosine in (1.0, 0.5, 0.2, -1.0):
        other = torch.tensor([cosine, (1 - cosine**2) ** 0.5])[None, :, None, None]
        torch.testing.assert_close(cosine_gap(3 * one, 7 * other, 0.5), torch.tensor(max(0.0, 0.5 - cosine)))
    alike, turned = torch.cat([one, one], 3), torch.cat([one, one.flip(1)], 3)  # cosines of the two places: 1 and 0
    torch.testing.assert_close(distance_gap(alike, turned, 0.25), torch.tensor(2 * 0.75 / 4))
    assert distance_gap(alike, turned, 1.0) == 0


def test_the_distances_know_no_rotation_no_scale_and_no_number_of_channels():
    latents, features = maps(2, 8, 3, 4), maps(2, 16, 3, 4, seed=1)
    rotation = torch.linalg.qr(maps(8, 8, seed=2)).Q
    turned = 5 * torch.einsum("dc,bchw->bdhw", rotation, latents)
    gap = distance_gap(latents, features, 0.25)
    assert gap > 0.01
    torch.testing.assert_close(distance_gap(turned, features, 0.25), gap)
    assert distance_gap(turned, latents, 1e-4) == 0
    assert cosine_gap(turned, latents, 0.5) > 0.01


def test_latents_that_are_the_features_cost_nothing():
    model = RepresentationAutoencoder(FEATURES, size=64, width=32, depth=1, num_heads=2)
    alignment = Alignment(64, FEATURES, cosine_margin=1e-4, distance_margin=1e-4)
    with torch.no_grad():
        assert alignment(seen(model)) > 0.1
        alignment.projection.weight.copy_(torch.eye(64)[:, :, None, None])
        assert alignment(seen(model)) == 0


def test_margins_of_nothing_leave_the_two_losses_bare():
    model, alignment = autoencoder(), Alignment(4, FEATURES, cosine_margin=0.0, distance_margin=0.0)
    it = seen(model)
    projected, wanted = alignment.projection(it.posterior.mode), standardised(FEATURES.maps(it.images)[-1])
    directions = [torch.nn.functional.normalize(each.flatten(2), dim=1) for each in (projected, wanted)]
    cosine = 1 - (directions[0] * directions[1]).sum(1).mean()
    similar = [each.transpose(1, 2) @ each for each in directions]
    torch.testing.assert_close(alignment(it), cosine + (similar[0] - similar[1]).abs().mean())


def test_gradients_reach_latents_and_projection_and_nothing_frozen():
    model, alignment = autoencoder(), Alignment(4, FEATURES)
    images = (maps(2, 3, 64, 64) / 3).requires_grad_()
    it = seen(model, images)
    it = Autoencoded(model, images, it.reconstructions.detach(), it.posterior)
    alignment(it).backward()
    assert alignment.projection.weight.grad.any()
    assert model.encoder.conv_out.weight.grad.any()
    assert all(parameter.grad is None for parameter in model.decoder.parameters())
    assert list(alignment.state_dict()) == ["projection.weight"]
    assert all(parameter.grad is None for parameter in FEATURES.net(images.device).parameters())


def test_it_is_balanced_against_the_reconstruction_at_the_encoder():
    model, alignment = autoencoder(), Alignment(4, FEATURES, weight=0.5)
    losses = AutoencoderLoss(kl_weight=0.0, terms=[alignment])(seen(model))
    expected = losses["reconstruction"] + 0.5 * losses["alignment_ratio"] * losses["alignment"]
    torch.testing.assert_close(losses["total"], expected)
    losses["total"].backward(retain_graph=True)
    weight = model.last_encoder_weight
    gradients = [
        torch.autograd.grad(losses[name], weight, retain_graph=True)[0].norm()
        for name in losses
        if name in ("reconstruction", "alignment")
    ]
    torch.testing.assert_close(losses["alignment_ratio"], gradients[0] / (gradients[1] + 1e-4), rtol=1e-3, atol=0)


def test_features_of_another_grid_are_resized_to_the_latents():
    torch.manual_seed(0)
    fine = KLAutoencoder(channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    assert Alignment(4, FEATURES)(seen(fine)).isfinite()


def test_it_stops_where_it_is_told_to_and_is_not_measured():
    alignment = Alignment(4, FEATURES, until=10)
    assert [alignment.weight_at(batch) for batch in (0, 9, 10)] == [0.1, 0.1, 0.0]
    assert list(AutoencoderLoss(terms=[alignment]).idle_parameters(10)) == [alignment.projection.weight]
    with torch.no_grad():
        assert "alignment" not in AutoencoderLoss(terms=[Alignment(4, FEATURES)])(seen())


def test_what_cannot_be_is_refused():
    for arguments in ({"cosine_margin": -0.1}, {"distance_margin": 2.0}):
        with pytest.raises(ValueError, match="margins must lie"):
            Alignment(4, FEATURES, **arguments)
    with pytest.raises(ValueError, match="give the autoencoder's"):
        Alignment(0, FEATURES)
    with pytest.raises(ValueError, match="0 or more"):
        Alignment(4, FEATURES, until=-1)
    with pytest.raises(ValueError, match="built for 3 latent channels, and the autoencoder has 4"):
        Alignment(3, FEATURES).check(autoencoder())
    rae = RepresentationAutoencoder(FEATURES, size=64, width=32, depth=1, num_heads=2)
    with pytest.raises(ValueError, match="has no encoder to balance"):
        Alignment(64, FEATURES).check(rae)
    point = DiagonalGaussian.point(maps(2, 4, 4, 4))
    assert Alignment(4, FEATURES)(Autoencoded(autoencoder(), maps(2, 3, 64, 64), maps(2, 3, 64, 64), point)) > 0
