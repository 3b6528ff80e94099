"""`ldm inspect` says of every kind of path what it is, and one contract wherever one autoencoder is behind it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from made_runs import autoencoder_run, diffusion_run
from safetensors.torch import save_file

from ldm import exporting, runs
from ldm.cli import main
from ldm.encoding import encode
from ldm.inspecting import facts, published
from ldm.networks import DiT
from ldm.networks.layouts import layouts


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_digits):
    """ae, dit, export, latents (and their images in images)."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(few_digits / "train", root / "images")
    autoencoder_run(root / "ae")
    diffusion_run(root / "dit", root / "ae", names=[f"number {i}" for i in range(10)])
    exporting.export(root / "dit", root / "export")
    encode(str(root / "ae"), str(root / "images"), str(root / "latents"), accelerator="cpu", num_workers=0)
    return root


KINDS = {
    "latents": "latent shards",
    "latents/shard-000001.tar": "one shard",
    "ae": "run of an autoencoder",
    "dit": "run of a diffusion model",
    "export": "export of a diffusion model",
}


@pytest.mark.parametrize("name", KINDS)
def test_the_contract_is_one_wherever_the_autoencoder_is_behind(made, name):
    found = facts(made / name)
    autoencoder = runs.load_autoencoder(str(made / "ae"))
    assert found["kind"] == KINDS[name]
    stored = name.startswith("latents")
    assert found["latents"] == {
        "autoencoder": autoencoder.fingerprint(),
        "class": "KLAutoencoder",
        "transform": {"size": 8, "crop": "center", "channels": 1},
        "shape": [2, 4, 4],
        "dtype": "float16" if stored else None,
        "downsample": 2,
        "mean": autoencoder.latent_mean.tolist(),
        "std": autoencoder.latent_std.tolist(),
        "num_samples": 10,
        "published": None,
    }


def test_images_and_models_say_what_they_hold(made):
    images, model = facts(made / "images"), facts(made / "dit")
    assert (images["kind"], images["samples"], images["labels"], images["latents"]) == ("image shards", 60, True, None)
    assert images["classes"] == [str(i) for i in range(10)]
    assert model["checkpoint"]["step"] == 2
    assert model["classes"][3] == "number 3"
    task = runs.load(made / "dit")
    assert model["parameters"]["net"] == sum(p.numel() for p in task.net.parameters())
    assert sum(model["parameters"].values()) == sum(p.numel() for p in task.parameters())
    assert facts(made / "export")["checkpoint"] is None


def test_weights_of_another_code_base_tell_their_layout(tmp_path):
    net = DiT(input_size=4, in_channels=2, patch_size=2, width=16, depth=1, num_heads=2)
    layout = layouts()["dit_official"]
    weights = {key: tensor.clone() for key, tensor in layout.written(net.state_dict(), net).items()}
    save_file(weights, tmp_path / "dit.safetensors")
    found = facts(tmp_path / "dit.safetensors")
    assert (found["holds"], found["layout"], found["tensors"]) == ("dit", layout.title, len(weights))


def test_what_has_no_parameters_is_not_listed(made):
    assert list(facts(made / "ae")["parameters"]) == ["autoencoder"]


def test_one_number_for_all_channels_is_shown_as_published():
    std = torch.full((4,), 1 / 1.5305).tolist()
    assert published([0.0609] * 4, std) == {"scale": 1.5305, "shift": 0.0609}
    assert published(torch.zeros(4).tolist(), torch.full((4,), 1 / 0.18215).tolist()) == {
        "scale": 0.18215,
        "shift": 0.0,
    }
    assert published([0.0, 0.1], [1.0, 1.0]) is None
    assert published([0.0, 0.0], [1.0, 1.1]) is None


def test_the_command_prints_plain_lines_and_json(made, capsys):
    for name in [*KINDS, "images"]:
        main(["inspect", str(made / name), "--json"])
        assert json.loads(capsys.readouterr().out) == {"path": str(made / name), **facts(made / name)}
        main(["inspect", str(made / name)])
        told = capsys.readouterr().out
        assert "\x1b" not in told
        assert ("latent contract" in told) == (name != "images")
    main(["inspect", str(made / "latents"), "--verify"])
    assert "content checked       yes" in capsys.readouterr().out


def test_unfinished_statistics_are_said_to_be_so(tmp_path, capsys):
    autoencoder_run(tmp_path / "young", measured=False)
    main(["inspect", str(tmp_path / "young")])
    assert "not measured yet" in capsys.readouterr().out


def test_what_cannot_be_inspected_is_one_sentence_and_exit_code_2(made, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(made / "latents", damaged)
    shard = damaged / "shard-000002.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no weights")
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    for message, argv in {
        "There is no": [tmp_path / "nowhere"],
        "holds neither manifest.json nor config.yaml": [tmp_path / "empty"],
        "file.txt cannot be read, because it is no file of weights: give": [tmp_path / "file.txt"],
        "bad.tar is no tar": [tmp_path / "bad.tar"],
        "content of shard-000002.tar differs": [damaged, "--verify"],
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["inspect", *map(str, argv)])
        told = capsys.readouterr().err
        assert ended.value.code == 2
        assert message in told
        assert told.count("\n") == 1
    assert not facts(Path(damaged))["checked"]
