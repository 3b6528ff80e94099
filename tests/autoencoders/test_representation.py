"""A frozen vision network encodes, a trained transformer decodes."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from made_runs import save_run
from safetensors.torch import save_file

from ldm import exporting, runs
from ldm.autoencoders import RepresentationAutoencoder
from ldm.errors import UserError
from ldm.nn.features import TimmFeatures
from ldm.tasks.base import BatchNoise

FEATURES = TimmFeatures("test_vit", layers=[-1])
SMALL = {"size": 64, "width": 32, "depth": 2, "num_heads": 2}


def small(features=FEATURES, **arguments):
    torch.manual_seed(0)
    return RepresentationAutoencoder(features, **{**SMALL, **arguments})


def images(height=64, width=64, channels=3):
    return torch.rand(4, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def draws(step=0):
    return BatchNoise(seed=0, step=step, rows=torch.arange(4), global_batch=4)


def test_latents_are_the_networks_last_norm_without_its_scale_and_shift():
    posterior = small().posterior(images())
    net = FEATURES.net(torch.device("cpu"))
    with torch.no_grad():
        tokens = net.forward_features(FEATURES.prepared(images()))[:, net.num_prefix_tokens :]
        tokens = (tokens - net.norm.bias) / net.norm.weight
    torch.testing.assert_close(posterior.mode, tokens.transpose(1, 2).reshape(4, 64, 4, 4), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(posterior.mode.mean(1), torch.zeros(4, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(posterior.mode.var(1, correction=0), torch.ones(4, 4, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("downsample", [8, 16, 32])
def test_any_downsampling_and_aspect_ratio_has_a_token_for_each_place(downsample):
    autoencoder = small(downsample=downsample, depth=1)
    z = autoencoder.encode(images(64, 128)).mode
    assert z.shape == (4, 64, 64 // downsample, 128 // downsample)
    assert autoencoder.decode(z).shape == (4, 3, 64, 128)


def test_the_decoder_is_all_that_is_trained_and_the_encoder_is_in_no_checkpoint():
    autoencoder = small()
    names = {name for name, parameter in autoencoder.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in names} == {"decoder"}
    saved = set(autoencoder.state_dict()) - names
    assert saved == {"latent_mean", "latent_std", "latent_samples"}
    assert not autoencoder.posterior(images()).mode.requires_grad
    assert any(autoencoder.last_weight is parameter for parameter in autoencoder.parameters())


def test_noise_is_one_of_the_step_and_none_changes_nothing():
    noisy, clean = small(), small(noise_std=0.0)
    measured = noisy.examine(images()).reconstructions
    assert torch.equal(noisy.examine(images()).reconstructions, measured)
    assert torch.equal(clean.autoencode(images(), draws()).reconstructions, measured)
    once, again, later = (noisy.autoencode(images(), draws(step)).reconstructions for step in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.allclose(once, later)
    assert not torch.allclose(once, measured)


def test_noise_has_the_published_spread(monkeypatch):
    autoencoder, many = small(noise_std=0.5), images(16, 16).repeat(64, 1, 1, 1)
    monkeypatch.setattr(autoencoder, "reconstruct", lambda z: z)
    seen = autoencoder.autoencode(many, BatchNoise(seed=0, step=0, rows=torch.arange(256), global_batch=256))
    spread = (seen.reconstructions - seen.posterior.mode).flatten(1).std(1)  # (B,): |N(0, 0.5^2)|
    assert 0.42 < spread.square().mean().sqrt() < 0.58
    assert spread.min() < 0.05


def test_other_grids_stretch_the_positions():
    decoder = small(size=64).decoder
    coarse, fine = decoder.pos_embed, decoder.positions.resized(decoder.pos_embed, (4, 4), (8, 8))
    torch.testing.assert_close(fine.reshape(8, 8, -1)[::2, ::2], coarse.reshape(4, 4, -1), atol=1e-5, rtol=1e-4)


def test_images_are_float32_under_autocast_and_checkpointing_changes_no_gradient():
    plain, checkpointed = small(), small(checkpointing=True)
    z = plain.posterior(images()).mode
    with torch.autocast("cpu", torch.bfloat16):
        assert plain.reconstruct(z).dtype == torch.float32
    for autoencoder in (plain, checkpointed):
        autoencoder.train().reconstruct(z).square().mean().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_one_colour_is_as_good_as_three():
    autoencoder = small(in_channels=1)
    grey = images(channels=1)
    assert torch.equal(autoencoder.posterior(grey).mode, small().posterior(grey.expand(-1, 3, -1, -1)).mode)
    assert autoencoder.reconstruct(autoencoder.posterior(grey).mode).shape == grey.shape


def weights_file(path, seed):
    torch.manual_seed(seed)
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), path)
    return str(path)


def test_an_autoencoder_is_told_from_one_with_another_encoder(tmp_path):
    files = [weights_file(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1)]
    prints = {small(TimmFeatures("test_vit", file, layers=[-1])).fingerprint() for file in (*files, None)}
    assert len(prints) == 3
    assert small().fingerprint() in prints
    assert small(TimmFeatures("test_vit", layers=[-2])).fingerprint() not in prints


def test_an_export_carries_the_encoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    encoder = {
        "class_path": "ldm.nn.features.TimmFeatures",
        "init_args": {
            "model": "test_vit",
            "weights": weights_file(Path("weights/vit.safetensors"), 0),
            "layers": [-1],
        },
    }
    autoencoder = {
        "class_path": "ldm.autoencoders.RepresentationAutoencoder",
        "init_args": {"encoder": encoder, **SMALL},
    }
    model = {"class_path": "ldm.tasks.AutoencoderTask", "init_args": {"autoencoder": autoencoder}}
    task = runs.build(model, Path("runs/rae"), False)
    task.autoencoder.set_statistics(0.1, 1.1, 8)
    save_run("runs/rae", model, task, size=64)
    trained = runs.load_autoencoder("runs/rae")
    expected, fingerprint = trained.examine(images()).reconstructions, trained.fingerprint()
    exporting.export("runs/rae", "published")
    shutil.rmtree("runs")
    shutil.rmtree("weights")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    shutil.move("../published", "here")
    assert Path("here/encoders/vit.safetensors").is_file()
    loaded = runs.load_autoencoder("here")
    assert loaded.fingerprint() == fingerprint
    assert torch.equal(loaded.examine(images()).reconstructions, expected)
    Path("here/encoders/vit.safetensors").unlink()
    with pytest.raises(UserError, match="there is no such file"):
        runs.load_autoencoder("here").encode(images())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 4}, "1 or 3 channels, and in_channels is 4"),
        ({"size": 60}, "not a multiple of downsample, 16"),
        ({"size": 0}, "not a multiple of downsample, 16"),
        ({"noise_std": -1.0}, "noise_std is -1.0"),
        ({"depth": 0}, "must be positive"),
        ({"num_heads": 3}, "does not split into 3 heads"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_an_encoder_that_resizes_by_itself_is_refused():
    autoencoder = small(TimmFeatures("test_vit", layers=[-1], size=32))
    with pytest.raises(ValueError, match="leave the encoder's size out"):
        autoencoder.posterior(images())
