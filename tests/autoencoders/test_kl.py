"""The KL autoencoder against the published architecture."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from ldm.autoencoders import Autoencoder, KLAutoencoder
from ldm.nn.resnet import group_norm
from ldm.nn.spatial_attention import SpatialAttention

PUBLISHED = {
    "kl-f4": {"latent_channels": 3, "channel_multipliers": [1, 2, 4]},
    "kl-f8": {},
    "kl-f16": {"latent_channels": 16, "channel_multipliers": [1, 1, 2, 2, 4], "attention_levels": [4]},
    "kl-f32": {"latent_channels": 64, "channel_multipliers": [1, 1, 2, 2, 4, 4], "attention_levels": [4, 5]},
}
COUNTS = {"kl-f4": 55_312_063, "kl-f8": 83_653_863, "kl-f16": 69_610_963, "kl-f32": 103_880_131}
LATENTS_AT_256 = {"kl-f4": (3, 64, 64), "kl-f8": (4, 32, 32), "kl-f16": (16, 16, 16), "kl-f32": (64, 8, 8)}


def published(name: str) -> KLAutoencoder:
    with torch.device("meta"):
        return KLAutoencoder(**PUBLISHED[name])


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**options: object) -> KLAutoencoder:
    torch.manual_seed(0)
    arguments = {"channels": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1, **options}
    return KLAutoencoder(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count(name: str) -> None:
    assert count(published(name)) == COUNTS[name]


def test_kl_f8_parts() -> None:
    model = published("kl-f8")
    parts = [model.encoder, model.decoder, model.quant_conv, model.post_quant_conv]
    assert [count(part) for part in parts] == [34_163_592, 49_490_179, 72, 20]
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-6)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_at_256(name: str) -> None:
    model = published(name)
    images = torch.zeros(2, 3, 256, 256, device="meta")
    latents = model.encode(images).mode
    assert latents.shape[1:] == model.latent_shape(256, 256) == LATENTS_AT_256[name]
    assert model.decode(latents).shape == images.shape


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_of_narrow_ones(name: str) -> None:
    model = KLAutoencoder(**{**PUBLISHED[name], "channels": 4, "in_channels": 1, "num_res_blocks": 1})
    images = torch.zeros(1, 1, 2 * model.downsample, model.downsample)
    assert model.decode(model.encode(images).mode).shape == images.shape


@pytest.mark.parametrize("name", PUBLISHED)
def test_attention_stands_where_it_is_asked_for(name: str) -> None:
    model, levels = published(name), PUBLISHED[name].get("attention_levels", [])
    found = {name for name, module in model.named_modules() if isinstance(module, SpatialAttention)}
    last = len(model.encoder.down) - 1
    expected = {"encoder.mid.1", "decoder.mid.1"}
    expected |= {f"encoder.down.{level}.attentions.{i}" for level in levels for i in range(2)}
    expected |= {f"decoder.up.{last - level}.attentions.{i}" for level in levels for i in range(3)}
    assert found == expected


def test_group_norm_of_narrow_layers() -> None:
    groups = {width: group_norm(width).num_groups for width in (1, 4, 8, 12, 30, 64, 96, 128, 512)}
    assert groups == {1: 1, 4: 1, 8: 2, 12: 3, 30: 6, 64: 16, 96: 24, 128: 32, 512: 32}


def test_attention_equals_its_definition() -> None:
    torch.manual_seed(0)
    layer = SpatialAttention(6).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, N) each
    mixed = torch.einsum("bnm,bcm->bcn", (torch.einsum("bcn,bcm->bnm", q, k) / 6**0.5).softmax(2), v)
    torch.testing.assert_close(layer(x), x + layer.out(mixed.reshape(2, 6, 3, 5)))


def test_checkpointing_changes_no_gradient() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    gradients = []
    for checkpointing in (False, True):
        model = small(checkpointing=checkpointing, dropout=0.3)
        torch.manual_seed(5)  # the dropout
        model.reconstruct(model.posterior(images).mode).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.decoder.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_half_precision_forward_gives_a_float32_posterior() -> None:
    model, images = small(), torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        posterior = model.encode(images)
    assert posterior.mean.dtype == posterior.logvar.dtype == torch.float32
    torch.testing.assert_close(posterior.mean, model.encode(images).mean, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention_levels": [2]}, "attention_levels"),
        ({"attention_levels": [-1]}, "attention_levels"),
        ({"channel_multipliers": []}, "at least one multiplier"),
        ({"channel_multipliers": [1, 0]}, "channel_multipliers"),
        ({"latent_channels": 0}, "latent_channels"),
        ({"resample": "pool"}, "resample"),
        ({"resample": "space_to_channel", "channel_multipliers": [1, 3]}, "each divides 4 times its neighbour"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_it_is_built_from_yaml() -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(Autoencoder, "autoencoder")
    options = "{channels: 8, channel_multipliers: [1, 2, 2], attention_levels: [2], num_res_blocks: 1}"
    spec = f"{{class_path: ldm.autoencoders.KLAutoencoder, init_args: {options}}}"
    model = parser.instantiate_classes(parser.parse_args([f"--autoencoder={spec}"])).autoencoder
    assert isinstance(model, KLAutoencoder)
    assert model.downsample == 4


def test_without_attention_the_rest_keeps_its_names_and_the_cost_is_linear_in_the_area() -> None:
    whole, free = small(), small(middle_attention=False)
    assert not any(isinstance(module, SpatialAttention) for module in free.modules())
    lacking = whole.state_dict().keys() - free.state_dict().keys()
    assert free.state_dict().keys() <= whole.state_dict().keys()
    assert {key.rsplit(".", 2)[0] for key in lacking} == {"encoder.mid.1", "decoder.mid.1"}


def test_under_autocast_images_and_the_last_gradient_are_float32() -> None:
    model, images = small(), torch.randn(2, 3, 8, 8)
    inside: list[Tensor] = []
    model.decoder.conv_out.register_forward_hook(lambda module, args, output: inside.extend([*args, output]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.reconstruct(model.posterior(images).mode)
    assert {tensor.dtype for tensor in inside} == {torch.float32}
    assert not torch.equal(out, out.bfloat16().float())  # finer than bfloat16
    (gradient,) = torch.autograd.grad(out.square().mean(), model.decoder.conv_out.weight)
    assert not torch.equal(gradient, gradient.bfloat16().float())
    assert model.bfloat16().reconstruct(torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("levels", [6, 7])
def test_deep_compression_at_32_and_64(levels: int) -> None:
    multipliers = [1, 2, 4, 4, 8, 8, 16][:levels]
    options = {"channels": 4, "channel_multipliers": multipliers, "middle_attention": False}
    model = small(**options, latent_channels=8, resample="space_to_channel")
    assert model.downsample == 2 ** (levels - 1)
    images = torch.randn(1, 3, model.downsample, 2 * model.downsample)
    latents = model.encode(images).mode
    assert latents.shape[1:] == (8, 1, 2)
    assert model.decode(latents).shape == images.shape


def test_deep_compression_has_shortcuts_at_the_head_and_the_entry_where_widths_divide() -> None:
    """With the head's and the entry's convolutions at zero the features are means and the entry a repetition."""
    seen: dict[str, Tensor] = {}
    for latent_channels, divides in ((4, True), (3, False)):
        model = small(latent_channels=latent_channels, resample="space_to_channel")  # widths 8 and 16
        for conv in (model.encoder.conv_out, model.decoder.conv_in):
            nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
        model.encoder.mid.register_forward_hook(lambda module, args, out: seen.update(middle=out))
        model.decoder.mid.register_forward_hook(lambda module, args, out: seen.update(entry=args[0]))
        features, z = model.encoder(torch.randn(1, 3, 8, 8)), torch.randn(1, latent_channels, 4, 4)
        model.decoder(z)
        means = seen["middle"].unflatten(1, (-1, 2)).mean(2) if divides else torch.zeros_like(features)
        torch.testing.assert_close(features, means)
        copies = z.repeat_interleave(4, dim=1) if divides else torch.zeros_like(seen["entry"])
        torch.testing.assert_close(seen["entry"], copies)
