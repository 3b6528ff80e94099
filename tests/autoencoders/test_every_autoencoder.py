"""What holds for every Autoencoder. A new class is found here by itself and only needs a small instance."""

import importlib
import pkgutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import ldm.autoencoders
from ldm.autoencoders import (
    Autoencoder,
    KLAutoencoder,
    LatentStatistics,
    Pixels,
    QuantisedAutoencoder,
    RepresentationAutoencoder,
    TinyDecoder,
)
from ldm.autoencoders.quantisers import VQ
from ldm.nn.features import TimmFeatures
from ldm.tasks.base import BatchNoise

for _module in pkgutil.iter_modules(ldm.autoencoders.__path__):
    importlib.import_module(f"ldm.autoencoders.{_module.name}")

FEATURES = TimmFeatures("test_vit", layers=[-1])
SMALL = {
    KLAutoencoder: lambda: KLAutoencoder(channels=8, channel_multipliers=[1, 2], num_res_blocks=1),
    Pixels: lambda: Pixels(3),
    TinyDecoder: lambda: TinyDecoder(
        KLAutoencoder(channels=8, channel_multipliers=[1, 2], num_res_blocks=1), channels=8, num_res_blocks=1
    ),
    QuantisedAutoencoder: lambda: QuantisedAutoencoder(
        VQ(num_codes=16, width=3, restart_every=1), channels=8, channel_multipliers=[1, 2], num_res_blocks=1
    ),
    RepresentationAutoencoder: lambda: RepresentationAutoencoder(FEATURES, size=64, width=32, depth=2, num_heads=2),
}


def leaves(parent: type) -> list[type]:
    below = parent.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [parent]


LEAVES = [leaf for leaf in leaves(Autoencoder) if leaf.__module__.startswith("ldm.")]


@pytest.fixture(params=LEAVES, ids=lambda leaf: leaf.__name__)
def autoencoder(request: pytest.FixtureRequest) -> Autoencoder:
    assert request.param in SMALL, f"give tests/autoencoders a small {request.param.__name__}"
    torch.manual_seed(0)
    return SMALL[request.param]()


def images_for(autoencoder: Autoencoder, batch: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    side = 4 * autoencoder.downsample
    return torch.rand(batch, autoencoder.in_channels, side, 2 * side, generator=generator) * 2 - 1


def test_shapes(autoencoder: Autoencoder) -> None:
    images = images_for(autoencoder)
    posterior = autoencoder.posterior(images)
    assert posterior.mean.shape == posterior.logvar.shape == (4, *autoencoder.latent_shape(*images.shape[2:]))
    assert autoencoder.reconstruct(posterior.mode).shape == images.shape


def test_fresh_statistics_change_nothing(autoencoder: Autoencoder) -> None:
    images = images_for(autoencoder)
    assert autoencoder.latent_samples == (0 if list(autoencoder.parameters()) else -1)  # nothing to train: known
    torch.testing.assert_close(autoencoder.encode(images).mode, autoencoder.posterior(images).mode)


def test_decode_undoes_the_normalisation_of_encode(autoencoder: Autoencoder) -> None:
    channels = autoencoder.latent_channels
    autoencoder.set_statistics(torch.linspace(-3, 5, channels), torch.linspace(0.1, 7, channels), 10)
    images = images_for(autoencoder)
    raw, latents = autoencoder.posterior(images), autoencoder.encode(images)
    eps = torch.randn(raw.mean.shape, generator=torch.Generator().manual_seed(2))
    expected = autoencoder.reconstruct(raw.sample(eps))
    torch.testing.assert_close(autoencoder.decode(latents.sample(eps)), expected, rtol=1e-4, atol=1e-5)


def test_latents_of_the_measured_set_have_mean_0_and_variance_1(autoencoder: Autoencoder) -> None:
    images = images_for(autoencoder, batch=8)
    with torch.no_grad():
        posterior = autoencoder.posterior(images)
        eps = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3))
        statistics = LatentStatistics(autoencoder.latent_channels)
        for part in posterior.sample(eps).split(3):
            statistics.update(part)
        autoencoder.set_statistics(*statistics.finalize())
        latents = autoencoder.encode(images).sample(eps).double()
    assert autoencoder.latent_samples == 8
    assert latents.mean((0, 2, 3)).abs().max() < 1e-5
    assert (latents.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_a_published_scale_factor_is_a_std(autoencoder: Autoencoder) -> None:
    autoencoder.set_statistics(0.0, 1 / 0.18215, num_samples=None)
    images = images_for(autoencoder)
    torch.testing.assert_close(autoencoder.encode(images).mode, 0.18215 * autoencoder.posterior(images).mode)
    assert autoencoder.latent_samples == -1
    before = autoencoder.fingerprint()
    autoencoder.set_statistics(autoencoder.latent_mean, autoencoder.latent_std, int(autoencoder.latent_samples))
    assert autoencoder.fingerprint() == before


@pytest.mark.parametrize(
    ("mean", "std", "num_samples", "message"),
    [
        (0.0, 0.0, 1, "must be positive"),
        (0.0, float("inf"), 1, "std is not finite"),
        (float("nan"), 1.0, 1, "mean is not finite"),
        (torch.zeros(99), 1.0, 1, "one per latent channel"),
        (0.0, 1.0, 0, "num_samples is 0"),
    ],
)
def test_bad_statistics_are_refused_whole(
    autoencoder: Autoencoder, mean: object, std: object, num_samples: int, message: str
) -> None:
    before = autoencoder.fingerprint()
    with pytest.raises(ValueError, match=message):
        autoencoder.set_statistics(mean, std, num_samples)  # type: ignore[arg-type]
    assert autoencoder.fingerprint() == before


def test_images_that_do_not_fit_are_refused_with_the_way_out(autoencoder: Autoencoder) -> None:
    f, channels = autoencoder.downsample, autoencoder.in_channels
    if f > 1:  # else every side will do
        with pytest.raises(ValueError, match=f"multiples of {f}, .* to {2 * f}x{3 * f}"):
            autoencoder.encode(torch.zeros(1, channels, 2 * f + 1, 3 * f))
    with pytest.raises(ValueError, match="multiples of"):
        autoencoder.latent_shape(0, f)
    with pytest.raises(ValueError, match="in_channels"):
        autoencoder.posterior(torch.zeros(1, channels + 1, f, f))


def test_fingerprint_changes_with_weights_and_statistics(autoencoder: Autoencoder) -> None:
    weights = list(autoencoder.parameters())
    prints = {autoencoder.fingerprint()}
    with torch.no_grad():
        for weight in weights[:1]:
            weight.flatten()[0].add_(1e-3)
    prints.add(autoencoder.fingerprint())
    for statistics in [(0.0, 2.0, 5), (0.1, 2.0, 5), (0.1, 2.5, 5), (0.1, 2.5, 6)]:
        autoencoder.set_statistics(*statistics)
        prints.add(autoencoder.fingerprint())
    assert len(prints) == 5 + len(weights[:1])
    assert all(len(bytes.fromhex(each)) == 32 for each in prints)


def test_fingerprint_survives_files_and_key_order(autoencoder: Autoencoder, tmp_path) -> None:
    autoencoder.set_statistics(0.5, 3.0, 7)
    expected = autoencoder.fingerprint()
    torch.save(autoencoder.state_dict(), tmp_path / "weights.pt")
    save_file(autoencoder.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    for state in (
        torch.load(tmp_path / "weights.pt", weights_only=True),
        load_file(tmp_path / "weights.safetensors"),
    ):
        fresh = SMALL[type(autoencoder)]()
        assert fresh.fingerprint() != expected
        fresh.load_state_dict(state, strict=True)
        assert fresh.fingerprint() == expected
        assert fresh.to(memory_format=torch.channels_last).fingerprint() == expected
    reverse = dict(reversed(autoencoder.state_dict().items()))
    autoencoder.state_dict = lambda: reverse  # type: ignore[method-assign]
    assert autoencoder.fingerprint() == expected


def test_every_trained_parameter_gets_a_gradient(autoencoder: Autoencoder) -> None:
    images = images_for(autoencoder)
    seen = autoencoder.autoencode(images, BatchNoise(seed=0, step=0, rows=torch.arange(4), global_batch=4))
    loss = (seen.reconstructions - images).square().mean() + sum(seen.penalties.values())
    assert loss.requires_grad == bool(list(autoencoder.parameters()))
    if loss.requires_grad:
        loss.backward()
    for name, parameter in autoencoder.named_parameters():
        borrowed = name.split(".")[0] in autoencoder.borrowed
        assert (parameter.grad is None) == borrowed, name
        if borrowed:
            continue
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
