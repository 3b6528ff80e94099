"""`ldm sample`: pictures where the user said, that say how they were made."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_runs import edit_config, text_run
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

import ldm
from ldm import runs
from ldm.cli import main
from ldm.cli.by_name import leaves, make
from ldm.diffusion.guidance import ClassifierFree
from ldm.diffusion.samplers import DDIM, Sampler
from ldm.images import to_uint8
from ldm.sampling import Request, sample_images

CPU = ["--accelerator", "cpu", "--num-steps", "3"]


def sample(*words):
    main(["sample", *words, *CPU])


def read(path):
    with Image.open(path) as picture:
        return pil_to_tensor(picture).int(), dict(picture.info)


def files(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}


def test_the_pngs_are_numbered_and_carry_seed_and_settings(work, capsys):
    sample(
        "dit", "--classes", "3", "7", "--num-images", "5", "--batch-size", "2", "--seed", "40", "--guidance-scale", "2"
    )
    assert sorted(os.listdir("samples")) == [f"{i:06d}.png" for i in range(5)]
    request = Request(range(40, 45), {"labels": [3, 7, 3, 7, 3]}, [ClassifierFree(2.0)])
    expected = sample_images(runs.load("dit"), request, DDIM(3))
    for i in range(5):
        pixels, info = read(f"samples/{i:06d}.png")
        assert (pixels - to_uint8(expected[i]).int()).abs().max() <= 1
        assert info == {
            "seed": str(40 + i),
            "class": str([3, 7][i % 2]),
            "run": "dit",
            "weights": "ema",
            "sampler": "DDIM(num_steps=3, eta=0.0, spacing=Trailing(), end_at_data=True)",
            "guidance_scale": "2.0",
        }
    assert "5 images in samples/" in capsys.readouterr().out


def test_batch_size_and_a_later_seed_change_no_image(work):
    arguments = ["dit", "--num-images", "6", "--sampler", "DDPM", "--classes", "1"]
    sample(*arguments, "--out", "whole")
    sample(*arguments, "--out", "parts", "--batch-size", "4")
    sample(*arguments, "--out", "later", "--seed", "2")
    for i in range(6):
        whole = read(f"whole/{i:06d}.png")[0]
        assert (whole - read(f"parts/{i:06d}.png")[0]).abs().max() <= 1
        if i >= 2:
            assert (whole - read(f"later/{i - 2:06d}.png")[0]).abs().max() <= 1


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_grid_and_film(work, kind, capsys):
    sample(
        "dit",
        "--classes",
        "3",
        "7",
        "8",
        "--num-images",
        "6",
        "--batch-size",
        "4",
        "--grid",
        "--film",
        kind,
        "--out",
        "o",
    )
    with Image.open("o/grid.png") as grid:
        assert grid.size == (3 * 66 + 2, 2 * 66 + 2 + 20)  # a column for each class, and their titles
    with Image.open(f"o/film.{kind}") as film:
        assert film.n_frames == 3
        assert film.size == (3 * 66 + 2, 2 * 66 + 2)  # the first batch
    told = capsys.readouterr().out
    assert "o/grid.png" in told
    assert f"o/film.{kind}" in told
    sample("dit", "--num-images", "5", "--grid", "--columns", "5", "--out", "o")
    with Image.open("o/grid.png") as grid:
        assert grid.size == (5 * 66 + 2, 68)


def test_the_sampler_and_its_settings(work):
    sample("dit", "--num-images", "1", "--sampler", "DDIM:eta=0.5,spacing=linspace")
    described = "DDIM(num_steps=3, eta=0.5, spacing=Linspace(), end_at_data=True)"
    assert read("samples/000000.png")[1]["sampler"] == described
    for leaf in leaves(Sampler):
        assert type(make(Sampler, leaf.__name__.upper(), "sampler", num_steps=3)) is leaf


def test_weights_and_an_unconditional_model(work):
    for which in ("raw", "ema", "0.99"):
        sample("plain", "--num-images", "2", "--weights", which, "--out", which)
        assert read(f"{which}/000000.png")[1]["weights"] == which
        assert "class" not in read(f"{which}/000000.png")[1]
    assert not torch.equal(read("raw/000000.png")[0], read("0.99/000000.png")[0])


def test_an_export_gives_the_same_images(work):
    main(["export", "dit", "published"])
    for run in ("dit", "published"):
        sample(run, "--classes", "5", "--num-images", "3", "--out", f"of-{run}")
    for i in range(3):
        assert torch.equal(read(f"of-dit/{i:06d}.png")[0], read(f"of-published/{i:06d}.png")[0])


def test_images_of_an_older_call_do_not_stay_among_the_new_ones_and_other_files_do(work, capsys):
    sample("dit", "--num-images", "5", "--classes", "1")
    Image.new("L", (8, 8)).save("samples/000009.png")  # numbered, but not by us
    Image.new("L", (8, 8)).save("samples/cat.png")
    Path("samples/notes.txt").write_text("mine")
    capsys.readouterr()
    sample("dit", "--num-images", "2", "--classes", "2")
    assert sorted(os.listdir("samples")) == ["000000.png", "000001.png", "000009.png", "cat.png", "notes.txt"]
    assert read("samples/000001.png")[1]["class"] == "2"
    assert "2 images in samples/ (3 of an older call removed)" in capsys.readouterr().out


def test_a_refused_call_leaves_older_images_alone(work, refused):
    sample("dit", "--num-images", "3", "--classes", "1")
    before = files("samples")
    assert "no class 12" in refused("sample", "dit", "--classes", "12", "--num-images", "1", *CPU)
    assert files("samples") == before


def test_what_the_model_or_the_sampler_cannot_do(work, refused):
    assert "classes 0 to 9" in refused("sample", "dit", "--classes", "-1", *CPU)
    assert "it takes nothing: it is unconditional" in refused("sample", "plain", "--classes", "1", *CPU)
    assert "name classes (--classes)" in refused("sample", "dit", "--guidance-scale", "2", *CPU)
    assert "not a finite number" in refused("sample", "dit", "--classes", "1", "--guidance-scale", "nan", *CPU)
    for option, value in (("--columns", "-3"), ("--seed", "-1"), ("--seed", str(2**63))):
        assert "0 or more" in refused("sample", "dit", option, value, *CPU)
    assert "choose one of " in refused("sample", "dit", "--sampler", "dimm", *CPU)
    for setting in ("eta", "steps=3", "num_steps=4"):
        assert f"knows eta, spacing, end_at_data; '{setting}'" in refused(
            "sample", "dit", *CPU, "--sampler", f"ddim:{setting}"
        )
    assert "eta=2" in refused("sample", "dit", *CPU, "--sampler", "ddim:eta=2")
    assert "eta=much is not a number" in refused("sample", "dit", *CPU, "--sampler", "ddim:eta=much")
    assert "choose one of karras, leading" in refused("sample", "dit", *CPU, "--sampler", "ddim:spacing=even")
    assert "at least 1" in refused("sample", "dit", "--num-images", "0", *CPU)
    assert "at least 1" in refused("sample", "dit", "--accelerator", "cpu", "--num-steps", "0")
    assert "no weights '0.5'" in refused("sample", "dit", "--weights", "0.5", *CPU)
    assert "ae holds an autoencoder" in refused("sample", "ae", *CPU)
    assert "not a run folder" in refused("sample", "nowhere", *CPU)
    assert "invalid choice: 'tpus'" in refused("sample", "dit", "--accelerator", "tpus")
    if not torch.cuda.is_available():
        assert "cannot be had on this machine" in refused("sample", "dit", "--accelerator", "gpu")
    assert "--devices 0" in refused("sample", "dit", *CPU, "--devices", "0")
    assert not Path("samples").exists()


def test_a_place_where_nothing_can_be_written(work, refused):
    Path("file").write_text("mine")
    assert "file" in refused("sample", "dit", "--out", "file", *CPU)
    assert "file/deep" in refused("sample", "dit", "--out", "file/deep", *CPU)
    assert Path("file").read_text() == "mine"


def test_more_steps_than_the_path_has(work, refused):
    path = {"class_path": "ldm.diffusion.paths.Linear"}
    edit_config("dit", lambda a: a["diffusion"]["init_args"].update(path=path))
    told = refused("sample", "dit", "--accelerator", "cpu", "--num-steps", "1001", "--out", "o")
    assert "num_steps=1001 is more than the 1000 steps" in told
    assert "at most 1000" in told


def test_sample_py_is_the_command_and_warns_on_stderr(work):
    text_run("text", "ae")
    script, prompt = Path(ldm.__file__).parents[1] / "sample.py", "a red circle left of a blue square and of something"
    done = subprocess.run(
        [sys.executable, str(script), "text", "--prompt", prompt, "--num-images", "2", "--out", "o", *CPU],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir("o")) == ["000000.png", "000001.png"]
    assert re.search(r"^ldm: warning: The caption 'a red .*Lost is: 'something'\.$", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_two_processes_write_the_files_that_one_writes(work):
    arguments = ["dit", "--classes", "3", "7", "--num-images", "7", "--batch-size", "1", "--grid", "--film", "gif"]
    sample(*arguments, "--out", "one")
    command = [sys.executable, "-m", "ldm", "sample", *arguments, *CPU, "--devices", "2", "--out", "two"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 images in two/") == 1
    assert files("one") == files("two")
