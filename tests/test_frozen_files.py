"""An export carries the files of frozen encoders; a run folder finds its own from elsewhere."""

import shutil
from pathlib import Path

import pytest
import torch
from made_runs import NET, autoencoder_run, save_run
from tiny_clip import WIDTH, text_conditioner, tiny_clip

from ldm import exporting, runs
from ldm.diffusion.samplers import DDIM
from ldm.errors import UserError
from ldm.frozen_files import gather_files, locate_files
from ldm.sampling import Request, sample_images

PROMPTS = ["a red circle", "blue"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A run that names its autoencoder and its text encoder relative to here."""
    monkeypatch.chdir(tmp_path)
    autoencoder_run("runs/ae")
    with tiny_clip(tmp_path):
        Path("weights").mkdir()
        shutil.move("clip.pt", "weights/clip.pt")
        write_run("runs/text")
        yield tmp_path


def block(class_path, **init_args):
    return {"class_path": class_path, "init_args": init_args}


def write_run(folder):
    cross = block("ldm.networks.blocks.AdaLNZeroCross", context_width=WIDTH)
    process = block(
        "ldm.diffusion.Diffusion",
        path=block("ldm.diffusion.paths.RectifiedFlow"),
        prediction=block("ldm.diffusion.predictions.Velocity"),
    )
    model = block(
        "ldm.tasks.DiffusionTask",
        net=block("ldm.networks.DiT", **NET, block=cross),
        diffusion=process,
        conditioner=text_conditioner("weights/clip.pt"),
        autoencoder=block("ldm.runs.load_autoencoder", run="runs/ae"),
    )
    task = runs.build(model, Path(folder), False)
    for parameter in task.net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_run(folder, model, task, size=8)


def images(folder):
    return sample_images(runs.load(folder), Request(range(2), {"captions": PROMPTS}), DDIM(2))


def test_an_export_carries_the_encoder_and_samples_after_the_original_is_gone(work, monkeypatch):
    expected = images("runs/text")
    assert not torch.allclose(expected[0], sample_images(runs.load("runs/text"), Request([0]), DDIM(2))[0])
    exporting.export("runs/text", "published")
    shutil.rmtree("runs")
    shutil.rmtree("weights")
    Path("encoders").mkdir()
    (Path("encoders") / "clip.pt").write_text("another file of that name, in the working directory")
    assert torch.equal(images("published"), expected)
    assert (work / "published" / "encoders" / "clip.pt").is_file()
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    shutil.move("../published", "here")
    assert torch.equal(images("here"), expected)
    exporting.export("here", "again")
    shutil.rmtree("here")
    assert torch.equal(images("again"), expected)


def test_an_export_with_encoders_is_replaced_unless_they_are_somebody_elses(work):
    exporting.export("runs/text", "out")
    with pytest.raises(UserError, match="exists already"):
        exporting.export("runs/text", "out")
    exporting.export("runs/text", "out", force=True)
    (work / "out" / "encoders" / "mine.pt").write_text("mine")
    with pytest.raises(UserError, match=r"such as encoders/mine\.pt"):
        exporting.export("runs/text", "out", force=True)
    (work / "models" / "encoders").mkdir(parents=True)
    (work / "models" / "encoders" / "clip.pt").write_text("mine")
    with pytest.raises(UserError, match=r"such as encoders/clip\.pt"):
        exporting.export("runs/text", "models", force=True)


def test_the_encoder_is_found_from_another_working_directory_or_named(work, monkeypatch):
    expected = images("runs/text")
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    assert torch.equal(images(work / "runs" / "text"), expected)
    assert len(runs.load_conditioner(work / "runs" / "text")) == 1
    shutil.rmtree(work / "weights")
    with pytest.raises(UserError, match=r"weights from weights/clip\.pt"):
        runs.load(work / "runs" / "text")


def test_folders_and_files_of_one_name_are_carried_side_by_side(tmp_path):
    files = ("t5/config.json", "t5/model.safetensors", "t5/tf_model.h5", "one/clip.pt", "two/clip.pt", "words/a.json")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    encoders = "ldm.conditioners.encoders."
    each = [
        block(f"{encoders}T5Text", folder="t5", tokenizer="words"),
        block(f"{encoders}OpenCLIPText", model="ViT-B-32", weights="one/clip.pt"),
        block(f"{encoders}OpenCLIPText", model="ViT-B-32", weights="two/clip.pt", tokenizer=None),
        block("ldm.conditioners.CLIPImage", model="ViT-B-32", weights="one/clip.pt", width=8),
    ]
    model = {"init_args": {"conditioner": block(f"{encoders}SideBySide", encoders=each), "path": "t5"}}
    locate_files(model, tmp_path)
    copies = gather_files(model)
    assert {place: str(file.relative_to(tmp_path)) for place, file in copies.items()} == {
        "encoders/t5/config.json": "t5/config.json",
        "encoders/t5/model.safetensors": "t5/model.safetensors",
        "encoders/words/a.json": "words/a.json",
        "encoders/clip.pt": "one/clip.pt",
        "encoders/3-clip.pt": "two/clip.pt",
    }
    named = [arguments["init_args"].get("weights") for arguments in each[1:]]
    assert named == ["encoders/clip.pt", "encoders/3-clip.pt", "encoders/clip.pt"]
    assert model["init_args"]["path"] == "t5"
