"""Files of published autoencoders become exports that the commands take, and runs become files that others take."""

import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from first_stage_reference import decode, drawn, encode, shapes
from made_runs import autoencoder_run, diffusion_run, save_run
from safetensors.torch import load_file, save_file

from ldm import exporting, runs
from ldm.autoencoders import AutoencoderLoss, KLAutoencoder, QuantisedAutoencoder
from ldm.autoencoders.layouts.compvis import CompVis
from ldm.autoencoders.layouts.diffusers import Diffusers
from ldm.cli import main
from ldm.errors import UserError
from ldm.importing import import_weights
from ldm.inspecting import facts
from ldm.tasks import AutoencoderTask

SMALL = {"ch_mult": [1, 1], "num_res_blocks": 1, "resolution": 16, "z_channels": 4}
VQ = {**SMALL, "z_channels": 3}
ONE = {"scaling_factor": 1.0}
CONFIG = {"_class_name": "AutoencoderKL", "norm_num_groups": 32}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The working directory, with kl.ckpt as CompVis trained it."""
    monkeypatch.chdir(tmp_path)
    beside = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.zeros(2)}
    torch.save({"state_dict": {**drawn(SMALL), **beside}, "global_step": 9, "callbacks": {}}, "kl.ckpt")
    return tmp_path


@cache
def weights_of_diffusers(quantised):
    """Weights of a small model by diffusers' names."""
    weights = drawn(VQ, 16) if quantised else drawn(SMALL)
    told = CompVis().describe(weights)
    model = (QuantisedAutoencoder if quantised else KLAutoencoder)(**told)
    model.load_state_dict(CompVis().renamed(weights, model))
    return {key: tensor.contiguous() for key, tensor in Diffusers().written(model.state_dict(), model).items()}


def folder(name, config, quantised=False, within="."):
    """A folder of diffusers' with a small model."""
    place = Path(name) / within
    place.mkdir(parents=True)
    save_file(weights_of_diffusers(quantised), place / "diffusion_pytorch_model.safetensors")
    (place / "config.json").write_text(json.dumps(config))
    return name


def changed(**changes):
    weights = {**torch.load("kl.ckpt", weights_only=True)["state_dict"], **changes}
    save_file({key: tensor for key, tensor in weights.items() if tensor is not None}, "changed.safetensors")
    return "changed.safetensors"


def statistics(name):
    model = runs.load_autoencoder(name)
    assert model.latent_samples == -1
    return model.latent_mean.tolist(), model.latent_std.tolist()


# Import.


def test_a_kl_checkpoint_becomes_an_export_that_answers_as_the_published_code_does(work):
    main(["import", "autoencoder", "kl.ckpt", "out", "--scale", "0.18215", "--size", "16"])
    model, weights = runs.load_autoencoder("out"), drawn(SMALL)
    assert isinstance(model, KLAutoencoder)
    assert (model.latent_channels, model.downsample, runs.trained_size(Path("out"))) == (4, 2, 16)
    images, latents = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 8, 8)
    mean = encode(weights, images).chunk(2, dim=1)[0]
    torch.testing.assert_close(model.encode(images).mode, mean * 0.18215, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.decode(latents), decode(weights, latents / 0.18215), rtol=1e-3, atol=1e-2)
    with pytest.raises(SystemExit):
        main(["import", "autoencoder", "kl.ckpt", "out", "--scale", "0.18215"])
    main(["import", "autoencoder", "kl.ckpt", "out", "--scale", "0.13", "--force"])
    assert runs.trained_size(Path("out")) == 256


def test_a_vq_checkpoint_becomes_a_quantised_autoencoder_of_scale_1(work):
    weights = drawn(VQ, 16)
    save_file(weights, "vq.safetensors")
    import_weights("autoencoder", "vq.safetensors", "out")
    model = runs.load_autoencoder("out")
    assert isinstance(model, QuantisedAutoencoder)
    assert (model.quantiser.num_codes, model.quantiser.width) == (16, 3)
    assert statistics("out") == ([0.0] * 3, [1.0] * 3)
    latents = torch.randn(1, 3, 8, 8)
    expected = decode(weights, latents)
    torch.testing.assert_close(model.decode(latents), expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@pytest.mark.parametrize(
    ("options", "config", "expected"),
    [
        ({"scale": "1.5305", "shift": "0.0609"}, {}, (0.0609, 1 / 1.5305)),
        ({"scale": "1,2,4,8", "shift": "-1,0,1,2"}, {}, ([-1, 0, 1, 2], [1, 0.5, 0.25, 0.125])),
        ({}, {"scaling_factor": 0.3611, "shift_factor": 0.1159}, (0.1159, 1 / 0.3611)),
        ({}, {"scaling_factor": 0.13025, "shift_factor": None, "latents_mean": None}, (0, 1 / 0.13025)),
        ({}, {"latents_mean": [1, 2, 3, 4], "latents_std": [2, 3, 4, 5]}, ([1, 2, 3, 4], [2, 3, 4, 5])),
        ({}, {"latents_mean": [1] * 4, "latents_std": [2] * 4, "scaling_factor": 0.5}, (1, 4)),
        ({"scale": "2"}, {"scaling_factor": 0.3611, "shift_factor": 0.1159}, (0.1159, 0.5)),
    ],
)
def test_the_statistics_are_those_of_the_options_or_else_of_the_config(work, options, config, expected):
    import_weights("autoencoder", folder("vae", {**CONFIG, **config, "sample_size": 32}), "out", **options)
    for found, told in zip(statistics("out"), expected, strict=True):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(told) * torch.ones(4))
    assert runs.trained_size(Path("out")) == 32


def test_a_pipelines_folder_is_searched_for_its_autoencoder(work):
    import_weights("autoencoder", folder("sd", {**CONFIG, "scaling_factor": 0.2}, within="vae"), "out", size=64)
    assert statistics("out") == ([0.0] * 4, [5.0] * 4)
    assert runs.trained_size(Path("out")) == 64


def test_a_quantised_model_of_diffusers_takes_the_factor_of_its_config(work):
    import_weights("autoencoder", folder("one", {"_class_name": "VQModel"}, quantised=True), "out")
    assert statistics("out") == ([0.0] * 3, [1.0] * 3)
    halved = {"_class_name": "VQModel", "scaling_factor": 0.5}
    import_weights("autoencoder", folder("two", halved, quantised=True), "second")
    assert statistics("second") == ([0.0] * 3, [2.0] * 3)


def test_what_cannot_be_imported_is_refused_in_one_sentence(work):
    autoencoder_run("ae", measured=True)
    Path("empty").mkdir()
    for arguments, told in (
        (("kl.ckpt", "out"), "Nothing says how large .* pass --scale, the published factor .0.18215 for Stable"),
        ((folder("bare", CONFIG), "out"), "Nothing says how large"),
        (("none.ckpt", "out"), "There is no file none.ckpt"),
        (("empty", "out"), r"empty is no folder of an autoencoder in diffusers: .* config.json"),
        (("kl.ckpt", "ae"), "holds other things than an export"),
    ):
        with pytest.raises(UserError, match=told):
            import_weights("autoencoder", *arguments)
    for options, told in (
        ({"scale": "big"}, "--scale is 'big': give a number, or one per latent channel"),
        ({"scale": "0"}, "give a positive factor"),
        ({"scale": "1,2"}, r"kl.ckpt: The latent std has shape \(2,\): give one number"),
        ({"scale": "1", "size": 33}, "multiples of 2, got 33x33"),
        ({"scale": "1", "num_heads": 2}, "--num-heads is an option of a dit or unet: leave it out"),
    ):
        with pytest.raises(UserError, match=told):
            import_weights("autoencoder", "kl.ckpt", "out", **options)
    assert not Path("out").exists()


def test_files_of_other_models_shapes_and_layouts_are_refused(work):
    with pytest.raises(UserError, match=r"kl.ckpt holds an autoencoder, .* say autoencoder, not dit"):
        import_weights("dit", "kl.ckpt", "out", "ae")
    with pytest.raises(UserError, match="--scale is an option of an autoencoder"):
        import_weights("dit", "kl.ckpt", "out", "ae", scale="1")
    save_file({"a.b": torch.zeros(1)}, "other.safetensors")
    with pytest.raises(UserError, match=r"no layout .* begin with a.b. .* CompVis' first stage; diffusers'"):
        import_weights("autoencoder", "other.safetensors", "out", scale="1")
    save_file({"time_embed.0.weight": torch.zeros(1), "input_blocks.0.0.weight": torch.zeros(1)}, "unet.safetensors")
    with pytest.raises(UserError, match=r"holds a unet, .*: say unet, not autoencoder"):
        import_weights("autoencoder", "unet.safetensors", "out", scale="1")
    for changes, told in (
        ({"decoder.mid.block_1.conv1.bias": None}, r"1 are missing \(decoder.mid.block_1.conv1.bias\)"),
        ({"decoder.up.1.block.0.conv1.weight": torch.zeros(128, 128, 1, 1)}, r"conv1.weight is \[128, 128, 1, 1\] and"),
        (
            {"quant_conv.weight": None},
            "looks like CompVis' first stage and lacks quant_conv.weight: give",
        ),
        ({"encoder.down.1.block.0.conv2.weight": torch.zeros(192, 9, 3, 3)}, "ldm builds only multiples of the first"),
    ):
        with pytest.raises(UserError, match=f"changed.safetensors.*{told}"):
            import_weights("autoencoder", changed(**changes), "out", scale="1")


def test_configs_of_other_models_are_refused(work):
    folder("vae", CONFIG)
    for config, told in (
        ({"_class_name": "AutoencoderTiny"}, "describes a AutoencoderTiny that ldm has not"),
        ({"_class_name": "VQModel", "norm_type": "spatial"}, "VQModel without MoVQ"),
        ({"act_fn": "relu"}, "activation relu"),
        ({"norm_num_groups": 16, "scaling_factor": 1}, "trained with 16 groups in each norm, .* has 32 here"),
        ({"scaling_factor": "much"}, "says scaling_factor: much, which is no number"),
    ):
        Path("vae/config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=told):
            import_weights("autoencoder", "vae", "out")
    Path("vae/config.json").write_text("[")
    with pytest.raises(UserError, match=r"config.json cannot be read as JSON"):
        import_weights("autoencoder", "vae", "out")


def test_a_narrow_file_without_its_config_is_refused(work):
    narrow = {**SMALL, "ch": 32}
    save_file({key: torch.zeros(shape) for key, shape in shapes(narrow).items()}, "narrow.safetensors")
    with pytest.raises(UserError, match=r"trained with 32 groups in each norm, .* has 8 here"):
        import_weights("autoencoder", "narrow.safetensors", "out", scale="1")


class Dangerous:
    def __reduce__(self):
        return print, ("run",)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(work, capsys):
    torch.save({"state_dict": {**drawn(SMALL), "x": Dangerous()}}, "bad.ckpt")
    with pytest.raises(UserError, match="without running code"):
        import_weights("autoencoder", "bad.ckpt", "out", scale="1")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("quantised", [False, True])
def test_inspect_tells_the_layout_of_an_autoencoder(work, quantised, capsys):
    by_compvis = drawn(VQ, 16) if quantised else drawn(SMALL)
    for layout, weights in ((CompVis(), by_compvis), (Diffusers(), weights_of_diffusers(quantised))):
        save_file(weights, "ae.safetensors")
        found = facts(Path("ae.safetensors"))
        assert (found["holds"], found["layout"], found["tensors"]) == ("autoencoder", layout.title, len(weights))
        assert found["values"] == sum(tensor.numel() for tensor in weights.values())
        main(["inspect", "ae.safetensors"])
        assert re.search(r"^holds +autoencoder *$", capsys.readouterr().out, re.MULTILINE)


def test_inspect_says_both_models_of_a_whole_stable_diffusion(work):
    keys = ("time_embed.0.weight", "input_blocks.0.0.weight")
    weights = {f"model.diffusion_model.{key}": torch.zeros(1) for key in keys}
    weights |= {f"first_stage_model.{key}": tensor for key, tensor in drawn(SMALL).items()}
    save_file(weights, "sd.safetensors")
    assert facts(Path("sd.safetensors"))["holds"] == "unet and autoencoder"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_their_name_in_the_file(work, value):
    key = "decoder.mid.block_1.conv1.bias"
    broken = drawn(SMALL)[key]
    broken[7] = value
    with pytest.raises(UserError, match=rf"changed.safetensors holds weights that are not finite .* first in {key}:"):
        import_weights("autoencoder", changed(**{key: broken}), "out", scale="1")
    assert not Path("out").exists()
    beside = {"loss.logvar": torch.tensor(value)}  # of no concern: it is not imported
    import_weights("autoencoder", changed(**beside), "out", scale="1", size=16)


# Export.


@pytest.mark.parametrize(("structure", "num_codes"), [(SMALL, None), (VQ, 16), ({**VQ, "attn_type": "none"}, 16)])
@pytest.mark.parametrize("layout", ["diffusers", "compvis"])
def test_what_is_exported_and_imported_again_is_the_same_autoencoder(work, layout, structure, num_codes):
    save_file(drawn(structure, num_codes), "given.safetensors")
    import_weights("autoencoder", "given.safetensors", "ours", scale="0.18215", size=16)
    main(["export", "ours", "theirs", "--layout", layout])
    source = "theirs" if layout == "diffusers" else "theirs/model.ckpt"
    options = {} if layout == "diffusers" else {"scale": "0.18215", "size": 16}
    import_weights("autoencoder", source, "back", **options)
    assert runs.load_autoencoder("back").fingerprint() == runs.load_autoencoder("ours").fingerprint()
    assert runs.trained_size(Path("back")) == 16
    with pytest.raises(UserError, match="exists already"):
        exporting.export("ours", "theirs", layout=layout)
    exporting.export("ours", "theirs", layout=layout, force=True)


def test_the_compvis_folder_holds_a_first_stage_as_it_was_published(work):
    structure = {**SMALL, "attn_resolutions": [8]}
    given = drawn(structure)
    save_file(given, "given.safetensors")
    import_weights("autoencoder", "given.safetensors", "ours", scale="0.25", size=16)
    exporting.export("ours", "theirs", layout="compvis")
    state = torch.load("theirs/model.ckpt", weights_only=True)["state_dict"]
    assert state.keys() == given.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in given.items())
    text = Path("theirs/config.yaml").read_text()
    assert text.startswith("# scale_factor of LatentDiffusion: 0.25\n")
    params = yaml.safe_load(text)["model"]["params"]
    ddconfig = {**params["ddconfig"]}
    assert (params["embed_dim"], ddconfig.pop("double_z"), ddconfig.pop("dropout")) == (4, True, 0.0)
    assert ddconfig == {**structure, "in_channels": 3, "out_ch": 3, "ch": 128}
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == shapes(ddconfig)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": "0.18215"}, {"scaling_factor": 0.18215}),
        ({"scale": "0.3611", "shift": "0.1159"}, {"scaling_factor": 0.3611, "shift_factor": 0.1159}),
        (
            {"scale": "2", "shift": "1,2,3,4"},
            {"scaling_factor": 1.0, "latents_mean": [1, 2, 3, 4], "latents_std": [0.5] * 4},
        ),
    ],
)
def test_diffusers_is_told_one_factor_where_one_will_do(work, options, told):
    import_weights("autoencoder", "kl.ckpt", "ours", size=16, **options)
    exporting.export("ours", "theirs", layout="diffusers")
    config = json.loads(Path("theirs/config.json").read_text())
    assert {key: config[key] for key in config if "factor" in key or "latents_" in key} == told
    assert (config["sample_size"], config["norm_num_groups"], config["layers_per_block"]) == (16, 32, 1)


@pytest.mark.parametrize("structure", [SMALL, {**SMALL, "attn_resolutions": [8]}, VQ, {**VQ, "attn_type": "none"}])
def test_diffusers_reads_the_folder_and_answers_equally(work, structure):
    diffusers = pytest.importorskip("diffusers")
    num_codes = 16 if structure["z_channels"] == 3 else None
    save_file(drawn(structure, num_codes), "given.safetensors")
    import_weights("autoencoder", "given.safetensors", "ours", scale="0.5", size=16)
    exporting.export("ours", "theirs", layout="diffusers")
    kind = diffusers.VQModel if num_codes else diffusers.AutoencoderKL
    theirs, ours = kind.from_pretrained("theirs"), runs.load_autoencoder("ours")
    images, latents = torch.randn(1, 3, 16, 16), torch.randn(1, structure["z_channels"], 8, 8)
    with torch.no_grad():
        encoded = theirs.encode(images)
        mode = encoded.latents if num_codes else encoded.latent_dist.mode()
        expected = mode * theirs.config.scaling_factor, theirs.decode(latents / theirs.config.scaling_factor).sample
        found = ours.encode(images).mode, ours.decode(latents)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.std().item())
    theirs.save_pretrained("saved")
    import_weights("autoencoder", "saved", "back")
    assert runs.load_autoencoder("back").fingerprint() == ours.fingerprint()


def test_what_other_layouts_cannot_hold_is_refused_and_nothing_is_left(work):
    autoencoder_run("ae")
    autoencoder_run("unfinished", measured=False)
    diffusion_run("dit", "ae")
    for run, layout, told in (
        ("ae", "compvis", r"All norms of CompVis' first stage have 32 groups, and this autoencoder's \[8, 16\]"),
        (
            "dit",
            "diffusers",
            "dit is no autoencoder's, and only these are written in the layout of diffusers",
        ),
        ("unfinished", "diffusers", "The autoencoder of unfinished is not finished"),
    ):
        with pytest.raises(UserError, match=told):
            exporting.export(run, "out", layout=layout)
    assert not list(Path().glob("out*"))


def test_attention_at_levels_without_the_middle_goes_to_diffusers_alone(work):
    arguments = {"channels": 128, "channel_multipliers": [1], "num_res_blocks": 1}
    arguments |= {"attention_levels": [0], "middle_attention": False}
    model = KLAutoencoder(**arguments)
    model.set_statistics(0.0, 1.0, 3)
    init = {"autoencoder": {"class_path": "ldm.autoencoders.KLAutoencoder", "init_args": arguments}}
    init["loss"] = {"class_path": "ldm.autoencoders.AutoencoderLoss"}
    block = {"class_path": "ldm.tasks.AutoencoderTask", "init_args": init}
    save_run("run", block, AutoencoderTask(model, AutoencoderLoss()), size=8)
    exporting.export("run", "out", layout="diffusers")
    assert load_file("out/diffusion_pytorch_model.safetensors")
    shutil.rmtree("out")
    with pytest.raises(UserError, match="write it in the layout of diffusers"):
        exporting.export("run", "out", layout="compvis")
