"""Weights of other code bases become exports that the commands take."""

import json
import re
from pathlib import Path

import open_clip
import pytest
import torch
from made_runs import NET, autoencoder_run, shaken
from open_clip.factory import _MODEL_CONFIGS
from safetensors.torch import save_file

from ldm import runs
from ldm.cli import main
from ldm.conditioners import FrozenText, Label
from ldm.diffusion.objectives import Hybrid
from ldm.diffusion.paths import Linear, ScaledLinear
from ldm.diffusion.predictions import Eps, V
from ldm.errors import UserError
from ldm.importing import import_weights
from ldm.networks import DiT, UNet
from ldm.networks.layouts.dit_official import LABELS, OfficialDiT
from ldm.networks.layouts.unet_compvis import PREFIX, UNetCompVis
from ldm.networks.unet_parts import Transformers

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 8, "layers": 1, "width": 8, "patch_size": 8, "head_width": 4}
UNET = {"input_size": 4, "in_channels": 2, "channels": 32, "channel_multipliers": (1,), "num_res_blocks": 1}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The working directory, with the run of an autoencoder and dit.pt, whose network and table are given."""
    monkeypatch.chdir(tmp_path)
    autoencoder_run("ae")
    net, label = shaken(DiT(**NET, learned_variance=True)), shaken(Label(3, 16))
    torch.save({**OfficialDiT().written(net.state_dict(), net), LABELS: label.embedding.weight.detach()}, "dit.pt")
    return net, label


def test_an_official_dit_is_imported_and_sampled_from(work):
    net, label = work
    Path("names.txt").write_text("cat\ndog\ncow\n")
    command = "import dit dit.pt out --autoencoder ae --num-heads 2 --classes names.txt"
    main(command.split())
    main(["sample", "out", "--classes", "cow", "0", "--num-images", "2", "--num-steps", "2", "--accelerator", "cpu"])
    assert len(list(Path("samples").glob("*.png"))) == 2
    task = runs.load_diffusion("out")
    torch.testing.assert_close(dict(task.net.state_dict()), dict(net.state_dict()))
    assert torch.equal(task.state_dict()["conditioner.embedders.0.embedding.weight"], label.embedding.weight)
    assert task.autoencoder.fingerprint() == runs.load_autoencoder("ae").fingerprint()
    assert task.net.num_heads == 2
    assert isinstance(task.diffusion.path, Linear)
    assert isinstance(task.diffusion.prediction, Eps)
    assert isinstance(task.diffusion.objective, Hybrid)  # since the variance is learned
    assert runs.read_classes(Path("out")) == ["cat", "dog", "cow"]
    assert runs.trained_size(Path("out")) == 8
    with pytest.raises(SystemExit):
        main(command.split())
    main([*command.split(), "--force"])


def test_a_unet_is_imported_with_its_text_encoder(work, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "tiny-import.json").write_text(json.dumps({"embed_dim": 10, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(tmp_path / "tiny-import.json")
    try:
        clip = open_clip.create_model("tiny-import", pretrained=None)
        save_file(clip.state_dict(), "clip.safetensors")
        net = shaken(UNet(**UNET, attention_levels=(0,), context_width=16, norm_groups=32, attention=Transformers(4)))
        weights = UNetCompVis().written(net.state_dict(), net)
        save_file({PREFIX + name: tensor.contiguous() for name, tensor in weights.items()}, "unet.safetensors")
        options = "--autoencoder ae --input-size 4 --num-heads 4 --prediction v"
        with pytest.raises(UserError, match="--text-weights FILE"):
            import_weights("unet", "unet.safetensors", "out", "ae")
        with pytest.raises(UserError, match="No text encoder 16 wide is known here: pass --text-model"):
            import_weights("unet", "unet.safetensors", "out", "ae", "clip.safetensors")
        text = "--text-weights clip.safetensors --text-model tiny-import"
        main(f"import unet unet.safetensors out {options} {text}".split())
        for name in ("clip.safetensors", "unet.safetensors"):
            Path(name).unlink()  # the export carries what it needs
        main(["sample", "out", "--prompt", "bee", "--num-images", "1", "--num-steps", "2", "--accelerator", "cpu"])
        task = runs.load_diffusion("out")
    finally:
        _MODEL_CONFIGS.pop("tiny-import", None)
    torch.testing.assert_close(dict(task.net.state_dict()), dict(net.state_dict()))
    assert isinstance(task.diffusion.path, ScaledLinear)
    assert isinstance(task.diffusion.prediction, V)
    (embedder,) = task.conditioner
    assert isinstance(embedder, FrozenText)
    assert Path("out/encoders/clip.safetensors").is_file()


def test_what_cannot_be_imported_is_refused_in_one_sentence(work):
    refusals = {
        ("dit", "dit.pt", "out"): "needs --autoencoder",
        ("dit", "none.pt", "out", "ae"): "There is no file none.pt",
        ("unet", "dit.pt", "out", "ae"): "holds a dit, in the layout of the official DiT: say dit",
        ("dit", "dit.pt", "ae", "ae"): "holds other things than an export",
    }
    for arguments, told in refusals.items():
        with pytest.raises(UserError, match=told):
            import_weights(*arguments)
    with pytest.raises(UserError, match="There is no path circle: choose one of"):
        import_weights("dit", "dit.pt", "out", "ae", num_heads=2, path="circle")
    with pytest.raises(UserError, match=r"dit.pt: .*trained on 4 patches .* set its input_size to 4"):
        import_weights("dit", "dit.pt", "out", "ae", num_heads=2, input_size=8)
    Path("names.txt").write_text("cat\n")
    with pytest.raises(UserError, match=r"names.txt has 1 names and dit.pt 3 classes"):
        import_weights("dit", "dit.pt", "out", "ae", num_heads=2, classes="names.txt")
    assert not Path("out").exists()


def test_keys_and_shapes_that_differ_are_named(work):
    weights = torch.load("dit.pt", weights_only=True)
    torch.save({"a.b": torch.zeros(1), "c": torch.zeros(2)}, "other.pt")
    with pytest.raises(UserError, match=re.escape("its keys begin with a.b, c. It knows")):
        import_weights("dit", "other.pt", "out", "ae")
    torch.save({name: tensor for name, tensor in weights.items() if "attn.proj" not in name}, "less.pt")
    with pytest.raises(UserError, match=r"less.pt: .*2 are missing \(blocks.0.attn.proj.bias"):
        import_weights("dit", "less.pt", "out", "ae", num_heads=2)
    torch.save({**weights, "blocks.0.attn.proj.weight": torch.zeros(16, 3)}, "shape.pt")
    with pytest.raises(UserError, match=r"shape.pt: .*attn.proj.weight is \[16, 3\]"):
        import_weights("dit", "shape.pt", "out", "ae", num_heads=2)
    torch.save({name: tensor for name, tensor in weights.items() if name != "pos_embed"}, "places.pt")
    with pytest.raises(UserError, match=r"places.pt looks like the official DiT and lacks pos_embed"):
        import_weights("dit", "places.pt", "out", "ae")
