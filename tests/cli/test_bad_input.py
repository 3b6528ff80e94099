"""What a user gets wrong, at each command."""

import shutil
from pathlib import Path

import pytest
from made_runs import autoencoder_run
from PIL import Image

from ldm import checkpoints
from ldm.cli import main

ENCODE = ["--accelerator", "cpu", "--num-workers", "0"]


def test_commands_that_there_are_not(refused):
    assert "choose one of quickstart, pack, fit" in refused("trian")
    assert "--help" in refused("pack")
    assert "--nope" in refused("export", "a", "b", "--nope")


def test_images_that_there_are_not(work, refused):
    Path("empty").mkdir()
    Path("words").mkdir()
    (Path("words") / "a.md").write_text("no image")
    Path("classes/cat").mkdir(parents=True)
    Path("classes/dog").mkdir()
    Image.new("RGB", (8, 8)).save("classes/cat/a.png")
    (Path("classes") / "dog" / "b.png").write_bytes(b"not an image")
    for source, named in (("gone", "gone"), ("empty", "empty"), ("words", "words"), ("classes", "dog")):
        assert named in refused("pack", source, "out")
        assert not Path("out").exists()


def test_shards_that_there_are_not(work, refused, few_digits):
    Path("plain").mkdir(exist_ok=True)
    shutil.copytree(few_digits / "train", "cut")
    shard = Path("cut/shard-000001.tar")
    shard.write_bytes(shard.read_bytes()[:-2000])
    assert "holds no manifest.json" in refused("encode", "ae", "plain", "out", *ENCODE)
    assert "gone is not a folder" in refused("encode", "ae", "gone", "out", *ENCODE)
    assert "shard-000001.tar" in refused("encode", "ae", "cut", "out", *ENCODE)
    assert not Path("out/manifest.json").exists()


def test_what_is_no_run_folder(work, refused, few_digits):
    Path("folder").mkdir()
    for command in (
        ["sample", "folder"],
        ["export", "folder", "out"],
        ["encode", "folder", few_digits / "train", "out"],
    ):
        assert "folder is not a run folder: it has no config.yaml" in refused(*command)
    assert not Path("out").exists()


def test_checkpoints_that_are_cut_short(work, refused):
    path = checkpoints.newest(Path("dit"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"Passing over the checkpoint dit/checkpoints/step-00000002\.ckpt"):
        assert "dit has no whole checkpoint" in refused("sample", "dit", "--accelerator", "cpu")
    assert path.stat().st_size == 1000


def test_an_autoencoder_that_is_not_finished_or_another_one(work, refused, few_digits):
    autoencoder_run("young", measured=False)
    assert "young is not finished" in refused("encode", "young", few_digits / "train", "out", *ENCODE)
    shutil.rmtree("ae")
    assert "needs the autoencoder in ae" in refused("sample", "dit", "--accelerator", "cpu")
    autoencoder_run("ae", seed=3)
    assert "latent space of autoencoder" in refused("sample", "dit", "--accelerator", "cpu")


def test_latents_of_another_autoencoder_in_the_place_of_ours(work, refused, few_digits):
    main(["encode", "ae", str(few_digits / "val"), "out", *ENCODE])
    autoencoder_run("other", seed=3)
    told = refused("encode", "other", few_digits / "val", "out", *ENCODE)
    assert "latents of autoencoder" in told
    assert "--force" in told


def test_an_export_in_the_way(work, refused):
    main(["export", "dit", "out"])
    assert "--force" in refused("export", "dit", "out")
    main(["export", "dit", "out", "--force"])
    assert "holds other things" in refused("export", "dit", "ae", "--force")
    Path("file").write_text("mine")
    assert "file" in refused("export", "dit", "file/deep")


def test_a_models_config_that_names_foreign_code(work, refused):
    path = Path("dit/config.yaml")
    path.write_text(path.read_text().replace("ldm.networks.DiT", "os.system"))
    told = refused("sample", "dit", "--accelerator", "cpu")
    assert "names os.system, which is not part of ldm" in told
    assert "--trust-code" in told
