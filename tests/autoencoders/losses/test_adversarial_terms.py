"""The game of an autoencoder and its discriminator, formula by formula."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm.autoencoders import Adversarial, Autoencoded, AutoencoderLoss, DiagonalGaussian, KLAutoencoder, Pixels
from ldm.autoencoders.discriminators import Discriminator, PatchGAN


class Linear(Discriminator):
    """Logits of known gradient."""

    def __init__(self, channels=3):
        super().__init__(channels)
        torch.manual_seed(5)
        self.layer = nn.Conv2d(channels, 1, 1)

    def forward(self, images):
        return self.layer(images)


@pytest.fixture
def seen():
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    posterior = autoencoder.posterior(images)
    return Autoencoded(autoencoder, images, autoencoder.reconstruct(posterior.mode), posterior)


GAMES = {
    "hinge": (lambda real, fake: (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2, lambda fake: -fake.mean()),
    "vanilla": (
        lambda real, fake: -(torch.sigmoid(real).log().mean() + torch.sigmoid(-fake).log().mean()) / 2,
        lambda fake: -fake.mean(),
    ),
    "non_saturating": (
        lambda real, fake: -(torch.sigmoid(real).log().mean() + torch.sigmoid(-fake).log().mean()) / 2,
        lambda fake: -torch.sigmoid(fake).log().mean(),
    ),
}


@pytest.mark.parametrize("game", GAMES)
def test_the_games(seen, game):
    term = Adversarial(Linear(), start=0, game=game)
    real, fake = term.discriminator(seen.images), term.discriminator(seen.reconstructions)
    of_discriminator, of_generator = GAMES[game]
    assert torch.allclose(term.discriminator_terms(seen, 0)["discriminator"], of_discriminator(real, fake), atol=1e-6)
    assert torch.allclose(term(seen), of_generator(fake), atol=1e-6)


def test_neither_loss_reaches_the_others_weights(seen):
    """So one backward pass of their sum is a step of each alone."""
    loss = AutoencoderLoss(terms=[Adversarial(PatchGAN(channels=4, depth=1), start=0, r1=1.0)])
    terms = loss(seen, 0)
    ours, theirs = list(seen.autoencoder.parameters()), list(loss.adversarial.discriminator.parameters())
    of_total = torch.autograd.grad(terms["total"], ours + theirs, retain_graph=True, allow_unused=True)
    assert all(g is not None for g in of_total[: len(ours)])
    assert all(g is None for g in of_total[len(ours) :])
    of_game = torch.autograd.grad(terms["discriminator"], ours + theirs, retain_graph=True, allow_unused=True)
    assert all(g is None for g in of_game[: len(ours)])
    assert all(g is not None for g in of_game[len(ours) :])
    assert all(p.requires_grad for p in theirs)


def test_the_ratio_makes_both_gradients_equally_long_at_the_last_weight(seen):
    loss = AutoencoderLoss(kl_weight=0, terms=[Adversarial(Linear(), weight=1.0, start=0)])
    terms = loss(seen, 0)
    weight = seen.autoencoder.last_weight
    lengths = {
        name: torch.autograd.grad(terms[name], weight, retain_graph=True)[0].norm()
        for name in ("reconstruction", "adversarial")
    }
    assert torch.allclose(terms["adversarial_ratio"], lengths["reconstruction"] / (lengths["adversarial"] + 1e-4))
    balanced = terms["adversarial_ratio"] * lengths["adversarial"]
    assert balanced == pytest.approx(lengths["reconstruction"].item(), rel=1e-2)
    assert not terms["adversarial_ratio"].requires_grad


def test_the_ratio_is_bounded_and_not_computed_before_its_time(seen):
    term = Adversarial(Linear(), start=3, warmup=1, most=0.01)
    loss = AutoencoderLoss(terms=[term])
    assert loss(seen, 3)["adversarial_ratio"] == pytest.approx(0.01)
    assert {"adversarial", "adversarial_ratio", "discriminator"} & loss(seen, 1).keys() == set()
    assert {"adversarial", "adversarial_ratio", "discriminator"} & loss(seen, 2).keys() == {"discriminator"}
    term.discriminator = None  # whoever looked at it would fail
    loss(seen, 1)
    with torch.no_grad():
        assert "adversarial" not in loss(seen, 10)  # validation does not play


def test_a_balance_needs_a_decoder():
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    pixels = Pixels(3)
    seen = Autoencoded(pixels, images, 0.9 * images, DiagonalGaussian.point(images))
    with pytest.raises(ValueError, match="has no decoder to balance"):
        AutoencoderLoss(kl_weight=0, terms=[Adversarial(Linear(), start=0)])(seen, 0)


def test_r1_is_half_the_squared_gradient(seen):
    """Of a linear discriminator sum(w x + b) over H x W places it is gamma / 2 |w|^2 H W."""
    term = Adversarial(Linear(), start=0, r1=10.0, r1_every=4)
    bare = Adversarial(term.discriminator, start=0)
    wanted = 10.0 * 4 * 0.5 * term.discriminator.layer.weight.square().sum() * 16 * 16
    for batch in range(8):
        losses = [each.discriminator_terms(seen, batch)["discriminator"] for each in (term, bare)]
        extra = (losses[0] - losses[1]).item()
        assert extra == pytest.approx(wanted.item() if batch % 4 == 0 else 0.0, rel=1e-4, abs=1e-6)
    (gradient,) = torch.autograd.grad(term.gradient_penalty(seen.images), term.discriminator.layer.weight)
    assert torch.allclose(gradient, term.discriminator.layer.weight * 16 * 16, rtol=1e-4)


def test_lecam_pulls_each_side_towards_the_others_average(seen):
    term = Adversarial(Linear(), start=0, lecam=1.0)
    real, fake = (term.discriminator(x).detach() for x in (seen.images, seen.reconstructions))
    penalty = term.lecam_penalty(real, fake)
    averages = 0.01 * real.mean(), 0.01 * fake.mean()
    expected = F.relu(real - averages[1]).square().mean() + F.relu(averages[0] - fake).square().mean()
    assert torch.allclose(penalty, expected)
    assert torch.allclose(term.real_mean, averages[0])
    assert torch.allclose(term.fake_mean, averages[1])


def test_the_published_discriminator_has_its_parameters():
    """3 layers from 64 channels: 2,765,633 with the published batch norm."""
    published = PatchGAN(3, 64, 3, "batch")
    assert sum(p.numel() for p in published.parameters()) == 2_765_633
    assert published(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6, 6)


def test_a_logit_sees_seventy_pixels():
    discriminator = PatchGAN(1, 2, 3, "none")
    image = torch.randn(1, 1, 256, 256, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(image)[0, 0, 15, 15], image)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("norm", ["group", "spectral", "none"])
def test_an_image_is_judged_whatever_stands_beside_it(norm):
    torch.manual_seed(0)
    discriminator = PatchGAN(3, 8, 2, norm).eval()
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(discriminator(images)[:1], discriminator(images[:1]), atol=1e-5)


def test_spectral_norm_bounds_the_slope():
    torch.manual_seed(0)
    discriminator = PatchGAN(1, 4, 2, "spectral")
    for _ in range(30):  # of the power iteration
        discriminator(torch.zeros(1, 1, 32, 32))
    for layer in discriminator.layers:
        if hasattr(layer, "parametrizations"):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, rel=0.05)


def test_huber_logvar_and_kl_options(seen):
    errors = (seen.images - seen.reconstructions).detach()
    huber = AutoencoderLoss("huber", huber_delta=0.2)(seen)["reconstruction"]
    assert torch.allclose(huber, torch.where(errors.abs() < 0.2, errors**2 / 2, 0.2 * (errors.abs() - 0.1)).mean())
    free = AutoencoderLoss(kl_weight=1.0, kl_free_bits=1e6)(seen)
    values = seen.posterior.kl_values().mean(0)
    assert torch.allclose(free["kl"], torch.tensor(1e6 * values.numel() / (3 * 16 * 16)))
    assert torch.autograd.grad(free["kl"], seen.autoencoder.quant_conv.weight, retain_graph=True)[0].abs().max() == 0
    rising = AutoencoderLoss(kl_weight=2.0, kl_warmup=10)
    extra = [(rising(seen, b)["total"] - rising(seen, b)["reconstruction"]).item() for b in (0, 5, 10, 20)]
    kl = AutoencoderLoss()(seen)["kl"].item()
    assert extra == pytest.approx([0.0, kl, 2 * kl, 2 * kl], rel=1e-3, abs=1e-6)
    learned = AutoencoderLoss(kl_weight=0.0, learned_logvar=True, logvar=0.5)(seen)
    assert torch.allclose(learned["total"], learned["reconstruction"] / torch.tensor(0.5).exp() + 0.5)


def test_penalties_of_the_autoencoder_count_as_they_are(seen):
    charged = dataclasses.replace(seen, penalties={"commitment": torch.tensor(3.0)})
    plain, more = AutoencoderLoss()(seen), AutoencoderLoss()(charged)
    assert (more["total"] - plain["total"]).item() == pytest.approx(3.0, abs=1e-5)
    assert more["commitment"] == 3.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adversarial(Linear(), game="wgan"), 'choose "hinge", "vanilla" or "non_saturating"'),
        (lambda: Adversarial(Linear(), start=-1), "0 or more"),
        (lambda: Adversarial(Linear(), r1_every=0), "at least 1"),
        (lambda: PatchGAN(norm="layer"), 'choose "group", "spectral", "batch" or "none"'),
        (lambda: PatchGAN(depth=0), "at least 1"),
        (lambda: AutoencoderLoss("huber", huber_delta=0.0), "must be positive"),
        (lambda: AutoencoderLoss(kl_warmup=-1), "0 or more"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
