"""Weights of autoencoders as CompVis and diffusers name them: lists of keys, equal outputs, and what does not fit."""

import math

import pytest
import torch
from first_stage_reference import PUBLISHED, decode, drawn, encode, shapes

from ldm.autoencoders import KLAutoencoder, Pixels, QuantisedAutoencoder
from ldm.autoencoders.layouts import layouts, recognise
from ldm.autoencoders.layouts.compvis import PREFIX, CompVis
from ldm.autoencoders.layouts.diffusers import OLDER, Diffusers
from ldm.autoencoders.quantisers import FSQ, LFQ, VQ
from ldm.errors import UserError

every_layout = pytest.mark.parametrize("layout", [CompVis(), Diffusers()], ids=["compvis", "diffusers"])
OURS = {
    "kl-f4": {"latent_channels": 3, "channel_multipliers": [1, 2, 4]},
    "kl-f8": {},
    "kl-f16": {"latent_channels": 16, "channel_multipliers": [1, 1, 2, 2, 4], "attention_levels": [4]},
    "kl-f32": {"latent_channels": 64, "channel_multipliers": [1, 1, 2, 2, 4, 4], "attention_levels": [4, 5]},
    "vq-f4": {"quantiser": (8192, 3)},
    "vq-f4-noattn": {"quantiser": (8192, 3), "middle_attention": False},
    "vq-f8": {"quantiser": (16384, 4), "channel_multipliers": [1, 2, 2, 4], "attention_levels": [3]},
    "vq-f8-n256": {"quantiser": (256, 4), "channel_multipliers": [1, 2, 2, 4], "attention_levels": [3]},
    "vq-f16": {"quantiser": (16384, 8), "channel_multipliers": [1, 1, 2, 2, 4], "attention_levels": [4]},
}
COUNTS = {
    "kl-f4": 55_312_063,
    "kl-f8": 83_653_863,
    "kl-f16": 69_610_963,
    "kl-f32": 103_880_131,
    "vq-f4": 55_322_782,
    "vq-f4-noattn": 53_219_486,
    "vq-f8": 67_717_295,
    "vq-f8-n256": 67_652_783,
    "vq-f16": 69_593_371,
}
SMALL = {"ch_mult": [1, 2], "num_res_blocks": 1, "resolution": 8}
STRUCTURES = {  # ddconfig, number of codes
    "kl": ({**SMALL, "z_channels": 4}, None),
    "kl with attention": ({**SMALL, "z_channels": 2, "attn_resolutions": [4], "in_channels": 1, "out_ch": 1}, None),
    "three levels": ({**SMALL, "z_channels": 2, "ch_mult": [1, 1, 2], "num_res_blocks": 2}, None),
    "vq": ({**SMALL, "z_channels": 3}, 16),
    "vq without attention": ({**SMALL, "z_channels": 3, "attn_type": "none"}, 16),
}
every_structure = pytest.mark.parametrize("structure", STRUCTURES)


def built(arguments):
    """The autoencoder of ours with the arguments that a layout describes."""
    return (QuantisedAutoencoder if "quantiser" in arguments else KLAutoencoder)(**arguments)


def ours(name):
    arguments = dict(OURS[name])
    with torch.device("meta"):
        if "quantiser" in arguments:
            arguments["quantiser"] = VQ(*arguments["quantiser"])
        return built(arguments)


def loaded(layout, weights):
    """The autoencoder that the weights describe, with them."""
    model = built(layout.describe(weights))
    model.load_state_dict(layout.renamed(weights, model), strict=True)
    return model.eval()


def answers(model, images, latents):
    """What it makes of images (moments, or latents before they are quantised) and of latents."""
    posterior = model.posterior(images)
    return posterior.moments() if isinstance(model, KLAutoencoder) else posterior.mode, model.reconstruct(latents)


def inputs(ddconfig):
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, ddconfig.get("in_channels", 3), 8, 8, generator=generator)
    factor = 2 ** (len(ddconfig["ch_mult"]) - 1)
    return images, torch.randn(2, ddconfig["z_channels"], 8 // factor, 8 // factor, generator=generator)


# The lists.


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_shapes_and_counts_are_those_of_the_published_first_stage(name):
    model, listed = ours(name), shapes(*PUBLISHED[name])
    weights = CompVis().written(model.state_dict(), model)
    assert {key: tuple(tensor.shape) for key, tensor in weights.items()} == listed
    assert sum(math.prod(shape) for shape in listed.values()) == COUNTS[name]
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


@every_layout
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_structure_is_read_from_keys_and_shapes(layout, name):
    model = ours(name)
    weights = layout.written(model.state_dict(), model)
    assert type(layouts()[recognise(weights)]) is type(layout)
    told = layout.describe(weights)
    quantiser = told.pop("quantiser", None)
    expected = {"in_channels": 3, "channels": 128, "channel_multipliers": [1, 2, 4, 4], "num_res_blocks": 2}
    expected |= {"attention_levels": [], "middle_attention": True, **OURS[name]}
    if quantiser is None:
        assert told == {"latent_channels": 4, **expected}
    else:
        assert (quantiser.num_codes, quantiser.width) == expected.pop("quantiser")
        assert told == {**expected, "channel_multipliers": OURS[name].get("channel_multipliers", [1, 2, 4])}


# Equal outputs.


@every_structure
def test_weights_by_compvis_names_answer_as_the_published_code_does(structure):
    ddconfig, num_codes = STRUCTURES[structure]
    weights = drawn(ddconfig, num_codes)
    images, latents = inputs(ddconfig)
    encoded, decoded = answers(loaded(CompVis(), weights), images, latents)
    for found, expected in ((encoded, encode(weights, images)), (decoded, decode(weights, latents))):
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@every_layout
@every_structure
def test_there_and_back_changes_nothing(layout, structure):
    ddconfig, num_codes = STRUCTURES[structure]
    model = loaded(CompVis(), drawn(ddconfig, num_codes))
    theirs = layout.written(model.state_dict(), model)
    again = loaded(layout, theirs)
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    once_more = layout.written(again.state_dict(), again)
    assert once_more.keys() == theirs.keys()
    assert all(torch.equal(once_more[key], tensor) for key, tensor in theirs.items())
    for found, expected in zip(answers(again, *inputs(ddconfig)), answers(model, *inputs(ddconfig)), strict=True):
        assert torch.equal(found, expected)


def test_queries_keys_and_values_are_not_exchanged():
    ddconfig, _ = STRUCTURES["kl"]
    weights = drawn(ddconfig)
    model = loaded(CompVis(), weights)
    width = model.encoder.mid[1].norm.num_channels
    for index, letter in enumerate("qkv"):
        part = model.encoder.mid[1].qkv.weight[index * width : (index + 1) * width]
        assert torch.equal(part, weights[f"encoder.mid.attn_1.{letter}.weight"])
    theirs = Diffusers().written(model.state_dict(), model)
    assert torch.equal(
        theirs["encoder.mid_block.attentions.0.to_k.weight"], weights["encoder.mid.attn_1.k.weight"][:, :, 0, 0]
    )


@every_structure
def test_diffusers_answers_with_our_weights_as_we_do_and_we_with_its(structure):
    diffusers = pytest.importorskip("diffusers")
    ddconfig, num_codes = STRUCTURES[structure]
    model = loaded(CompVis(), drawn(ddconfig, num_codes))
    attention = [256 if ddconfig.get("attn_resolutions") and level else 0 for level in range(len(ddconfig["ch_mult"]))]
    config = {
        "in_channels": model.in_channels,
        "out_channels": model.in_channels,
        "down_block_types": ["AttnDownEncoderBlock2D" if some else "DownEncoderBlock2D" for some in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if some else "UpDecoderBlock2D" for some in reversed(attention)],
        "block_out_channels": [128 * factor for factor in ddconfig["ch_mult"]],
        "layers_per_block": ddconfig["num_res_blocks"],
        "latent_channels": ddconfig["z_channels"],
        "mid_block_add_attention": ddconfig.get("attn_type") != "none",
    }
    if num_codes:
        theirs = diffusers.VQModel(**config, num_vq_embeddings=num_codes).eval()
    else:
        theirs = diffusers.AutoencoderKL(**config).eval()
    theirs.load_state_dict(Diffusers().written(model.state_dict(), model), strict=True)
    images, latents = inputs(ddconfig)
    with torch.no_grad():
        encoded = theirs.encode(images)
        expected = encoded.latents if num_codes else encoded.latent_dist.parameters, theirs.decode(latents).sample
    for found, tensor in zip(answers(loaded(Diffusers(), theirs.state_dict()), images, latents), expected, strict=True):
        torch.testing.assert_close(found, tensor, rtol=1e-3, atol=1e-3 * tensor.std().item())


# What files hold besides.


def test_the_first_stage_is_found_in_the_file_of_a_whole_model_without_its_discriminator_and_averages():
    alone = drawn(*STRUCTURES["kl"])
    extra = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.zeros(1)}
    extra |= {"model_ema.decay": torch.zeros(()), "model_ema.encoderconv_inweight": torch.zeros(1)}
    whole = {f"{PREFIX}{key}": tensor for key, tensor in alone.items()}
    whole |= {"model.diffusion_model.out.0.weight": torch.zeros(1), "cond_stage_model.x": torch.zeros(1)}
    expected = loaded(CompVis(), alone).state_dict()
    for weights in ({**alone, **extra}, whole, {**whole, f"{PREFIX}loss.logvar": torch.zeros(())}):
        assert recognise(weights) == "compvis"
        found = loaded(CompVis(), weights).state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_files_of_diffusers_from_before_its_attention_had_its_present_names():
    model = loaded(CompVis(), drawn(*STRUCTURES["kl with attention"]))
    theirs = Diffusers().written(model.state_dict(), model)
    older = {}
    for key, tensor in theirs.items():
        for old, new in OLDER.items():
            key = key.replace(f".{new}.", f".{old}.") if ".attentions." in key else key
        older[key] = tensor
    assert older.keys() & theirs.keys() != theirs.keys()
    found = loaded(Diffusers(), older).state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())


@every_layout
def test_an_autoencoder_without_convolutions_around_its_latent_gets_identities(layout):
    model = loaded(CompVis(), drawn(*STRUCTURES["kl"]))
    bare = {k: v for k, v in layout.written(model.state_dict(), model).items() if "quant_conv" not in k}
    found = loaded(layout, bare)
    images, latents = inputs(STRUCTURES["kl"][0])
    encoded, decoded = answers(found, images, latents)
    assert torch.equal(encoded, found.encoder(images))
    assert torch.equal(decoded, found.decoder(latents))


# What does not fit.


@every_layout
def test_the_first_keys_and_shapes_that_differ_are_named(layout):
    model = loaded(CompVis(), drawn(*STRUCTURES["kl"]))
    weights = layout.written(model.state_dict(), model)
    lacking, foreign = sorted(weights)[5], {"decoder.time.weight": torch.ones(1)}
    with pytest.raises(UserError) as caught:
        layout.renamed({key: tensor for key, tensor in weights.items() if key != lacking} | foreign, model)
    assert f"1 are missing ({lacking}) and 1 are not of this network (decoder.time.weight)" in str(caught.value)
    query = next(key for key in weights if key.endswith(("mid.attn_1.q.weight", "attentions.0.to_q.weight")))
    told = rf"{query} is \[3, 5\] and the network's encoder.mid.1.qkv.weight is \[256, 256"
    with pytest.raises(UserError, match=told):
        layout.renamed({**weights, query: torch.ones(3, 5)}, model)
    with pytest.raises(KeyError, match=r"quant_conv.weight"):
        layout.describe({key: tensor for key, tensor in weights.items() if key != "quant_conv.weight"})
    wider = {key: torch.ones(192, 192, 3, 3) for key in weights if ".1." in key and key.endswith("0.conv2.weight")}
    with pytest.raises(UserError, match=r"\[128, 192\] channels wide: ldm builds only multiples"):
        layout.describe({**weights, **wider})


@every_layout
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantiser": FSQ([3, 3, 3])}, "no names for FSQ"),
        ({"quantiser": LFQ(4)}, "no names for LFQ"),
        ({"resample": "space_to_channel"}, "no names for ResidualDownsample"),
        (
            {"resample": "space_to_channel", "channel_multipliers": [1]},
            "no names for the shortcuts of space-to-channel",
        ),
        ({"channels": 32, "channel_multipliers": [1, 2]}, r"this autoencoder's.* \[8, 16\]"),
    ],
)
def test_what_the_layout_has_no_names_for_is_refused(layout, options, message):
    model = built({"channels": 64, "channel_multipliers": [1, 1], "num_res_blocks": 1, **options})
    with pytest.raises(UserError, match=message):
        layout.names(model)


@every_layout
def test_other_autoencoders_are_refused(layout):
    with pytest.raises(UserError, match="no names for a Pixels: only a KLAutoencoder"):
        layout.names(Pixels(3))


def test_groups_of_a_narrow_autoencoder_go_to_diffusers_alone():
    narrow = KLAutoencoder(channels=32, channel_multipliers=[1, 1], num_res_blocks=1)
    assert Diffusers().names(narrow)
    with pytest.raises(UserError, match=r"have 32 groups, and this autoencoder's \[8\]"):
        CompVis().names(narrow)


def test_keys_of_nothing_known_are_not_recognised():
    assert recognise(KLAutoencoder(channels=8, channel_multipliers=[1]).state_dict()) is None
