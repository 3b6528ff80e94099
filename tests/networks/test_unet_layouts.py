"""Weights of U-Nets as CompVis and diffusers name them: the lists of keys, equal outputs, and what does not fit."""

import math

import pytest
import torch
from compvis_reference import answer
from unet_cases import KINDS, tiny, woken

from ldm.errors import UserError
from ldm.networks import Conditioning, DiT, UNet
from ldm.networks.layouts import layouts, recognise
from ldm.networks.layouts.unet_compvis import PREFIX, UNetCompVis
from ldm.networks.layouts.unet_diffusers import UNetDiffusers
from ldm.networks.unet_parts import Residual, Transformers

LAYOUTS = [UNetCompVis(), UNetDiffusers()]
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["compvis", "diffusers"])
STRUCTURES = {
    "conv": {"attention": Transformers(2)},
    "linear": {"attention": Transformers(head_width=16, depth=[1, 2], linear_projections=True)},
    "three levels": {"channel_multipliers": (1, 1, 2), "attention_levels": (2,), "attention": Transformers(2)},
    "middle alone": {"attention_levels": (), "attention": Transformers(4), "num_res_blocks": 2},
    "shifted": {"block": Residual(scale_shift=True), "learned_variance": True, "attention": Transformers(2)},
    "inpainting": {"concat_channels": 3, "attention": Transformers(2)},
}
ADM = {"resample": "residual", "num_res_blocks": 2, "attention": Transformers(2)}


def small(**options):
    """As wide as 32 groups need it."""
    return tiny(**{"channels": 32, "context_width": 6, "norm_groups": 32, **options})


# The lists, written down from how the published models are built.


def residual_shapes(names, into, out, embedding=1280):
    norm1, conv1, told, norm2, conv2, shortcut = names
    shapes = {norm1: (into,), told: (out, embedding), norm2: (out,)}
    shapes |= {conv1: (out, into, 3, 3), conv2: (out, out, 3, 3)}
    shapes |= {shortcut: (out, into, 1, 1)} if into != out else {}
    return with_biases(shapes)


def transformer_shapes(width, context=768):
    block = "transformer_blocks.0"
    shapes = {"norm": (width,), "proj_in": (width, width, 1, 1), "proj_out": (width, width, 1, 1)}
    shapes |= {f"{block}.norm{i}": (width,) for i in (1, 2, 3)}
    shapes |= {f"{block}.attn{i}.to_out.0": (width, width) for i in (1, 2)}
    shapes |= {f"{block}.ff.net.0.proj": (8 * width, width), f"{block}.ff.net.2": (width, 4 * width)}
    shapes = with_biases(shapes)
    for letter in "qkv":
        shapes[f"{block}.attn1.to_{letter}.weight"] = (width, width)
        shapes[f"{block}.attn2.to_{letter}.weight"] = (width, width if letter == "q" else context)
    return shapes


def with_biases(shapes):
    return {
        f"{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def under(prefix, shapes):
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def stable_diffusion_compvis():
    names = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
    shapes = with_biases({"time_embed.0": (1280, 320), "time_embed.2": (1280, 1280)})
    shapes |= with_biases({"input_blocks.0.0": (320, 4, 3, 3), "out.0": (320,), "out.2": (4, 320, 3, 3)})
    for place, into, out in (
        (1, 320, 320),
        (2, 320, 320),
        (4, 320, 640),
        (5, 640, 640),
        (7, 640, 1280),
        (8, 1280, 1280),
    ):
        shapes |= under(f"input_blocks.{place}.0", residual_shapes(names, into, out))
        shapes |= under(f"input_blocks.{place}.1", transformer_shapes(out))
    for place in (10, 11):
        shapes |= under(f"input_blocks.{place}.0", residual_shapes(names, 1280, 1280))
    for place, width in ((3, 320), (6, 640), (9, 1280)):
        shapes |= with_biases({f"input_blocks.{place}.0.op": (width, width, 3, 3)})
    for place in (0, 2):
        shapes |= under(f"middle_block.{place}", residual_shapes(names, 1280, 1280))
    shapes |= under("middle_block.1", transformer_shapes(1280))
    joined = [2560, 2560, 2560, 2560, 2560, 1920, 1920, 1280, 960, 960, 640, 640]
    widths = [1280] * 6 + [640] * 3 + [320] * 3
    for place, (into, out) in enumerate(zip(joined, widths, strict=True)):
        shapes |= under(f"output_blocks.{place}.0", residual_shapes(names, into, out))
        shapes |= under(f"output_blocks.{place}.1", transformer_shapes(out)) if place >= 3 else {}
    for name, width in (("2.1", 1280), ("5.2", 1280), ("8.2", 640)):
        shapes |= with_biases({f"output_blocks.{name}.conv": (width, width, 3, 3)})
    return shapes


def stable_diffusion_diffusers():
    names = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
    shapes = with_biases({"time_embedding.linear_1": (1280, 320), "time_embedding.linear_2": (1280, 1280)})
    shapes |= with_biases({"conv_in": (320, 4, 3, 3), "conv_norm_out": (320,), "conv_out": (4, 320, 3, 3)})
    widths = [320, 640, 1280, 1280]
    for i, width in enumerate(widths):
        for j, into in enumerate((widths[max(0, i - 1)], width)):
            shapes |= under(f"down_blocks.{i}.resnets.{j}", residual_shapes(names, into, width))
            shapes |= under(f"down_blocks.{i}.attentions.{j}", transformer_shapes(width)) if i < 3 else {}
        shapes |= with_biases({f"down_blocks.{i}.downsamplers.0.conv": (width, width, 3, 3)}) if i < 3 else {}
    for j in (0, 1):
        shapes |= under(f"mid_block.resnets.{j}", residual_shapes(names, 1280, 1280))
    shapes |= under("mid_block.attentions.0", transformer_shapes(1280))
    joined = [(2560, 2560, 2560), (2560, 2560, 1920), (1920, 1280, 960), (960, 640, 640)]
    for i, (width, intos) in enumerate(zip(reversed(widths), joined, strict=True)):
        for j, into in enumerate(intos):
            shapes |= under(f"up_blocks.{i}.resnets.{j}", residual_shapes(names, into, width))
            shapes |= under(f"up_blocks.{i}.attentions.{j}", transformer_shapes(width)) if i > 0 else {}
        shapes |= with_biases({f"up_blocks.{i}.upsamplers.0.conv": (width, width, 3, 3)}) if i < 3 else {}
    return shapes


@pytest.fixture(scope="module")
def stable_diffusion():
    with torch.device("meta"):
        return UNet(context_width=768)


@pytest.mark.parametrize(
    ("layout", "listed"),
    zip(LAYOUTS, (stable_diffusion_compvis(), stable_diffusion_diffusers()), strict=True),
    ids=["compvis", "diffusers"],
)
def test_keys_and_shapes_are_those_of_stable_diffusion(layout, listed, stable_diffusion):
    weights = layout.written(stable_diffusion.state_dict(), stable_diffusion)
    assert {key: tuple(tensor.shape) for key, tensor in weights.items()} == listed
    assert len(listed) == 686
    assert sum(math.prod(shape) for shape in listed.values()) == 859_520_964
    told = layout.describe(weights)
    assert (told["channels"], told["channel_multipliers"], told["num_res_blocks"]) == (320, [1, 2, 4, 4], 2)
    assert (told["attention_levels"], told["context_width"], told["in_channels"]) == ([0, 1, 2], 768, 4)
    assert vars(told["attention"]) == vars(Transformers())
    assert vars(told["block"]) == vars(Residual())


# What a layout does with weights.


@every_layout
@pytest.mark.parametrize("structure", STRUCTURES)
def test_there_and_back_and_built_from_the_weights_alone(layout, structure):
    net = woken(small(**STRUCTURES[structure]))
    theirs = layout.written(net.state_dict(), net)
    assert layouts()[recognise(theirs.keys())].title == layout.title
    again = UNet(input_size=4, **{**layout.describe(theirs), "norm_groups": 32})
    back = layout.renamed(theirs, again)
    again.load_state_dict(back)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())
    assert back.keys() == net.state_dict().keys()


@pytest.mark.parametrize("options", [*(STRUCTURES[name] for name in ("conv", "linear", "shifted")), ADM])
def test_a_net_with_compvis_weights_answers_as_the_published_code_does(options):
    net = woken(small(**options))
    if options is STRUCTURES["linear"]:  # 2 heads at the first level, 4 at the second: the reference has one number
        net = woken(small(**{**options, "attention": Transformers(2, depth=[1, 2], linear_projections=True)}))
    weights = UNetCompVis().written(net.state_dict(), net)
    x, tokens, t = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 6), torch.tensor([3.0, 700.0])
    expected = answer(weights, x, t, tokens, num_heads=2)
    assert expected.std() > 0.01
    torch.testing.assert_close(
        net(x, t, Conditioning(tokens=tokens)), expected, rtol=1e-3, atol=1e-4 * expected.std().item()
    )


def test_residual_resampling_is_read_from_compvis_weights():
    net = small(**ADM)
    told = UNetCompVis().describe(UNetCompVis().written(net.state_dict(), net))
    assert (told["resample"], told["num_res_blocks"], told["channel_multipliers"]) == ("residual", 2, [1, 2])


def test_the_net_is_found_in_the_file_of_a_whole_model():
    net = woken(small(attention=Transformers(2)))
    alone = UNetCompVis().written(net.state_dict(), net)
    whole = {f"{PREFIX}{key}": tensor for key, tensor in alone.items()} | {"first_stage_model.x": torch.zeros(1)}
    assert recognise(whole.keys()) == "unet_compvis"
    assert UNetCompVis().describe(whole)["context_width"] == 6
    found = UNetCompVis().renamed(whole, net)
    assert all(torch.equal(found[key], tensor) for key, tensor in net.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("linear", [False, True])
def test_a_net_with_diffusers_weights_answers_as_diffusers_does(linear):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6,
        attention_head_dim=2,
        use_linear_projection=linear,
    )
    weights = woken(theirs).state_dict()
    told = UNetDiffusers().describe(weights)
    net = UNet(input_size=4, **{**told, "norm_groups": 32, "attention": Transformers(2, linear_projections=linear)})
    net.load_state_dict(UNetDiffusers().renamed(weights, net))
    x, tokens, t = torch.randn(2, 4, 4, 4), torch.randn(2, 3, 6), torch.tensor([3.0, 700.0])
    mask = torch.tensor([[True] * 3, [True, False, False]])
    expected = theirs(x, t, tokens, encoder_attention_mask=mask).sample
    torch.testing.assert_close(net(x, t, Conditioning(tokens=tokens, mask=mask)), expected, rtol=1e-4, atol=1e-4)


# What does not fit.


@every_layout
def test_the_first_keys_that_differ_are_named(layout):
    net = small(attention=Transformers(2))
    weights = layout.written(net.state_dict(), net)
    lacking = sorted(weights)[5]
    changed = {key: tensor for key, tensor in weights.items() if key != lacking} | {
        "label_emb.0.0.weight": torch.ones(1)
    }
    with pytest.raises(UserError) as caught:
        layout.renamed(changed, net)
    assert f"1 are missing ({lacking}) and 1 are not of this network (label_emb.0.0.weight)" in str(caught.value)
    narrower = small(attention=Transformers(2), context_width=5)
    with pytest.raises(UserError, match=r"attn2.to_k.weight is \[32, 6\] and the network's .* is \[32, 5\]"):
        layout.renamed(weights, narrower)
    with pytest.raises(UserError, match=r"weights lack .*attn2.*only kind whose structure"):
        layout.describe({key: tensor for key, tensor in weights.items() if "attn2" not in key})


@every_layout
def test_a_net_without_names_in_the_layout_is_refused(layout):
    for net, message in (
        (DiT(4, 2, 2, 8, 1, 2), "the network is a DiT"),
        (tiny(**KINDS["annotated"]), "no names for this net's block"),
        (tiny(**KINDS["lucid"]), "without standardised"),
        (tiny(**KINDS["self-attention"]), "hears no tokens"),
    ):
        with pytest.raises(UserError, match=message):
            layout.names(net)


def test_each_layout_refuses_what_only_the_other_has():
    with pytest.raises(UserError, match="set norm_groups of the net to 32"):
        UNetCompVis().names(tiny(**KINDS["transformers"]))
    with pytest.raises(UserError, match='resample "conv"'):
        UNetDiffusers().names(small(**ADM))


def test_keys_of_nothing_known_are_not_recognised():
    assert recognise(tiny(**KINDS["transformers"]).state_dict().keys()) is None
