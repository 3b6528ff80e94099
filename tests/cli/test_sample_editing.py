"""Guidance by name, and editing: pictures to start from, masks, interpolation."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from made_runs import diffusion_run, edit_config, walks
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm import runs
from ldm.cli import main
from ldm.cli.by_name import known
from ldm.diffusion.guidance import Guidance
from ldm.diffusion.samplers import DDIM, RePaint, Sampler
from ldm.editing import from_images
from ldm.sampling import Request, sample_steps

CPU = ["--accelerator", "cpu", "--num-steps", "4"]


def sample(run, *options):
    main(["sample", run, *CPU, *map(str, options)])


def read(path):
    with Image.open(path) as picture:
        return pil_to_tensor(picture)[0].float(), dict(picture.info)


@pytest.fixture
def picture(work):
    """A gradient, bright at the right; its file name."""
    Image.linear_gradient("L").rotate(90).save("given.png")
    return "given.png"


@pytest.mark.parametrize("name", [n for n, leaf in known(Sampler).items() if walks(leaf)])
def test_every_sampler_is_had_by_name(work, name):
    sample("dit", "--classes", 3, "--num-images", 2, "--sampler", name)
    assert read("samples/000000.png")[1]["sampler"].lower().startswith(f"{name}(num_steps=4")


@pytest.mark.parametrize("name", list(known(Guidance)))
def test_every_rule_is_had_by_name(work, name, monkeypatch):
    Path("mine.py").write_text("def logits(x_t, t):\n    return x_t.flatten(1)[:, :10] * 3\n")
    monkeypatch.syspath_prepend(str(work))
    diffusion_run("weak", "ae", seed=1)
    further = ["--weak-run", "weak"] if known(Guidance)[name].needs_weak else []
    further += ["--guidance-scale", "3"] if known(Guidance)[name].needs_rule else []
    further += ["--classifier", "mine.logits", "--trust-code"] if name == "classifierguidance" else []
    sample("dit", "--classes", 3, "--num-images", 2, "--out", "plain")
    sample("dit", "--classes", 3, "--num-images", 2, "--guidance", name, *further)
    assert read("samples/000000.png")[1]["guidance"].lower().startswith(name)
    sys.modules.pop("mine", None)


def test_rules_compose_in_their_order(work):
    options = ["--classes", 3, 5, "--num-images", 2, "--guidance-scale", 3]
    sample("dit", *options, "--guidance", "interval:low=0.9,high=1", "--out", "narrow")
    sample("dit", *options, "--guidance", "interval:low=0,high=1", "--out", "whole")
    sample("dit", *options, "--out", "without")
    assert torch.equal(read("whole/000000.png")[0], read("without/000000.png")[0])
    assert not torch.equal(read("narrow/000000.png")[0], read("without/000000.png")[0])
    assert read("narrow/000000.png")[1]["guidance"] == "Interval(low=0.9, high=1.0)"


def test_negative_classes_and_two_passes(work):
    options = ["--classes", 3, "--num-images", 2, "--guidance-scale", 3]
    sample("dit", *options, "--negative-classes", 5, "--out", "away")
    sample("dit", *options, "--negative-classes", 5, "--two-passes", "--out", "two")
    sample("dit", *options, "--out", "without")
    assert not torch.equal(read("away/000001.png")[0], read("without/000001.png")[0])
    assert (read("away/000001.png")[0] - read("two/000001.png")[0]).abs().max() <= 1


def test_temperature_is_in_all_noise(work):
    for temperature in (1, 0.5):
        sample("dit", "--num-images", 1, "--temperature", temperature, "--sampler", "ddpm", "--out", f"at{temperature}")
    assert not torch.equal(read("at1/000000.png")[0], read("at0.5/000000.png")[0])


def test_a_given_picture_is_kept_the_more_the_smaller_the_strength(work, picture):
    distances = []
    for strength in (0.25, 0.5, 1):
        sample("dit", "--images", picture, "--strength", strength, "--num-images", 2, "--out", "o")
        image, about = read("o/000000.png")
        assert (about["images"], about["strength"]) == (picture, str(float(strength)))
        assert not torch.equal(image, read("o/000001.png")[0])  # another seed is another variation
        distances.append(image)
    sample("dit", "--num-images", 2, "--out", "plain")
    assert torch.equal(distances[-1], read("plain/000000.png")[0])  # strength 1 forgets the picture
    assert not torch.equal(distances[0], distances[1])


def test_a_mask_keeps_what_is_black(work, picture):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))  # white at the left
    mask.save("mask.png")
    task = runs.load_diffusion("dit")
    for sampler in (DDIM(4), RePaint(4)):
        edit = from_images(task, [picture], 3, 1.0, "mask.png", sampler)
        *_, last = sample_steps(task, Request(range(3), {"labels": [3, 3, 3]}, edit=edit), sampler)
        assert torch.equal(edit.mask[0, 0], torch.tensor([[1.0, 1, 0, 0]]).expand(4, 4))
        assert torch.equal(last.x[..., 2:], edit.known[..., 2:])
        assert last.x[..., :2].std(0).min() > 0.01  # what is painted depends on the seed
        sample("dit", "--images", picture, "--mask", "mask.png", "--num-images", 2, "--sampler", type(sampler).__name__)
        image, about = read("samples/000000.png")
        assert about["mask"] == "mask.png"
        assert not torch.equal(image, read("samples/000001.png")[0])


def test_interpolation_goes_from_one_end_to_the_other(work, picture):
    sample("dit", "--interpolate", "--num-images", 5, "--classes", 3, "--seed", 7)
    between = [read(f"samples/{i:06d}.png")[0] for i in range(5)]
    sample("dit", "--num-images", 2, "--classes", 3, "--seed", 7, "--out", "ends")
    for end, index in ((0, 0), (1, 4)):
        assert (read(f"ends/{end:06d}.png")[0] - between[index]).abs().max() <= 1
    assert not torch.equal(between[1], between[2])
    Image.new("L", (64, 64), 200).save("other.png")
    sample("dit", "--interpolate", "--images", picture, "other.png", "--num-images", 3, "--classes", 3)
    assert not torch.equal(read("samples/000000.png")[0], read("samples/000002.png")[0])


def test_what_has_no_meaning_is_refused_before_any_work(work, picture, refused):
    Image.new("L", (64, 64), 0).save("black.png")
    Path("text.png").write_text("no image")
    dit = ["sample", "dit", *CPU, "--out", "never"]
    asked = [*dit, "--classes", "3"]
    assert "keeps" not in refused(*asked, "--guidance", "interval")
    assert "choose one of apg, autoguidance" in refused(*asked, "--guidance", "cgf")
    assert "choose one of annealedlangevin, cold, ddim" in refused(*asked, "--sampler", "heum")
    assert "0" in refused(*asked, "--guidance-scale", "2", "--guidance", "interval:low=0.5,high=1.2")
    assert "knows low, high" in refused(*asked, "--guidance", "interval:start=0.5")
    assert "weak" in refused(*asked, "--guidance", "autoguidance")
    assert "--trust-code" in refused(*asked, "--guidance", "classifierguidance", "--classifier", "os.system")
    assert "cannot be imported" in refused(*asked, "--classifier", "nowhere.logits", "--trust-code")
    assert "classifier" in refused(*asked, "--guidance", "classifierguidance")
    assert "name classes (--classes)" in refused(*dit, "--guidance-scale", "2")
    assert "use one of" in refused(*asked, "--guidance", "cfgplusplus", "--sampler", "dormandprince")
    assert "use one of" in refused(*dit, "--images", picture, "--mask", picture, "--sampler", "rk4")
    assert "temperature" in refused(*dit, "--temperature", "0")
    assert "no white" in refused(*dit, "--images", picture, "--mask", "black.png")
    assert "text.png cannot be used" in refused(*dit, "--images", "text.png")
    assert "nowhere.png" in refused(*dit, "--images", "nowhere.png")
    assert "outside (0, 1]" in refused(*dit, "--images", picture, "--strength", "1.5")
    for option, value in (("--strength", "0.5"), ("--mask", picture)):
        assert "name them with --images" in refused(*dit, option, value)
        assert "--interpolate" in refused(*dit, "--interpolate", option, value)
    assert "raise --strength or --num-steps" in refused(*dit, "--images", picture, "--strength", "0.01")
    assert "learned_variance" in refused(*asked, "--sampler", "ddpm:variance=learnedrange")
    assert "add --guidance" in refused(*asked, "--weak-run", "dit")
    assert "add --guidance" in refused(*asked, "--classifier", "os.getcwd", "--trust-code")
    assert "names 1" in refused(*dit, "--interpolate", "--images", picture)
    assert not list(Path("never").glob("*.png"))


def test_a_model_trained_without_dropout_has_nothing_to_be_held_against(work, refused):
    edit_config("dit", lambda a: a["conditioner"]["init_args"]["embedders"][0]["init_args"].update(dropout=0.0))
    told = refused("sample", "dit", *CPU, "--classes", "3", "--guidance-scale", "2")
    assert "dropout 0" in told
    assert "--negative-classes" in told
    sample("dit", "--classes", 3, "--guidance-scale", 2, "--negative-classes", 4, "--num-images", 1)
    assert os.listdir("samples") == ["000000.png"]


def test_a_weak_model_must_speak_of_the_same_latents_and_path(work, refused):
    shutil.copytree("dit", "other")
    edit_config(
        "other", lambda a: a["diffusion"]["init_args"].update(path={"class_path": "ldm.diffusion.paths.Cosine"})
    )
    told = refused("sample", "dit", *CPU, "--classes", "3", "--guidance", "autoguidance", "--weak-run", "other")
    assert "Cosine" in told
    assert "RectifiedFlow" in told
    asked = ["--classes", "3", "--guidance", "autoguidance", "--weak-run"]
    diffusion_run("few", "ae", classes=2)
    assert "Of the weak model: There is no class 3" in refused("sample", "dit", *CPU, *asked, "few")


def test_a_classifier_guides_a_model_without_classes(work, refused, monkeypatch):
    Path("theirs.py").write_text(
        "def logits(x_t, t):\n    return x_t.flatten(1)[:, :10] * 30\n"
        "def one_row(x_t, t):\n    return x_t.flatten()[:3]\n"
        "def two_classes(x_t, t):\n    return x_t.flatten(1)[:, :2]\n"
    )
    monkeypatch.syspath_prepend(str(work))
    options = ["--guidance", "classifierguidance:scale=5", "--trust-code", "--num-images", "2", "--classifier"]
    sample("plain", "--classes", 3, *options, "theirs.logits", "--out", "guided")
    sample("plain", "--num-images", 2, "--out", "free")
    assert not torch.equal(read("guided/000000.png")[0], read("free/000000.png")[0])
    for wrong in ("one_row", "two_classes"):
        told = refused("sample", "plain", *CPU, "--classes", "3", *options, f"theirs.{wrong}")
        assert "has to give logits (B, classes)" in told
    sys.modules.pop("theirs", None)
