"""`ldm likelihood`: what it measures, what it writes, what it refuses; and diffusion in pixels from end to end."""

import json
import math
from pathlib import Path

import pytest
import torch
from made_runs import NET, label_conditioner, save_run, shaken

from ldm import runs
from ldm.autoencoders import Pixels
from ldm.cli import main
from ldm.cli.likelihood import make_method, rows
from ldm.data import ShardDataset
from ldm.data.transform import ImageTransform
from ldm.diffusion.likelihood import Continuous, Discrete, bits, total
from ldm.diffusion.variances import FixedLarge
from ldm.likelihood import Measured
from ldm.sampling import ImageNoise


def pixel_run(folder, path="Cosine", num_classes=10, **settings):
    """A run folder of a diffusion model in the pixels of 8 x 8 grey images."""
    diffusion = {
        "path": {"class_path": f"ldm.diffusion.paths.{path}", "init_args": settings},
        "prediction": {"class_path": "ldm.diffusion.predictions.V"},
    }
    model = {
        "class_path": "ldm.tasks.DiffusionTask",
        "init_args": {
            "net": {"class_path": "ldm.networks.DiT", "init_args": {**NET, "input_size": 8, "in_channels": 1}},
            "diffusion": {"class_path": "ldm.diffusion.Diffusion", "init_args": diffusion},
            "conditioner": label_conditioner(num_classes, NET["width"]),
            "autoencoder": {"class_path": "ldm.autoencoders.Pixels", "init_args": {"in_channels": 1}},
        },
    }
    task = shaken(runs.build(model, Path(folder), trust_code=False))
    return save_run(folder, model, task, size=8)


@pytest.fixture
def pixels(work):
    return pixel_run("pixels"), pixel_run("steps", "Linear", num_steps=20, beta_start=0.001, beta_end=0.4)


def asked(run, shards, *options):
    main(["likelihood", str(run), str(shards), "--out", "out/found.json", "--num-images", "6", *map(str, options)])
    with open("out/found.json") as file:
        return json.load(file)


def test_a_pixel_model_is_a_run_like_any_other(pixels, few_digits, capsys):
    task = runs.load_diffusion(pixels[0])
    assert isinstance(task.autoencoder, Pixels)
    assert not any(name.startswith("autoencoder") for name in task.trained_parameters())
    main(["sample", "pixels", "--num-images", "2", "--num-steps", "2", "--out", "pictures"])
    main(["export", "pixels", "exported"])
    assert runs.load_autoencoder("exported").fingerprint() == Pixels(1).fingerprint()
    assert asked("exported", few_digits / "val", "--method", "continuous", "--num-steps", 2)["num_images"] == 6


@pytest.mark.parametrize(
    ("run", "method", "terms"),
    [("pixels", "continuous:num_steps=5", 7), ("pixels", "ode:num_steps=2", 4), ("steps", "discrete", 21)],
)
def test_pixels_are_measured_by_every_method(pixels, few_digits, capsys, run, method, terms):
    found = asked(run, few_digits / "val", "--method", method)
    assert math.isfinite(found["bits_per_dim"])
    assert found["bits_per_dim"] == pytest.approx(sum(found["images"]) / 6)
    assert found["bits_per_dim"] == pytest.approx(sum(term["bits_per_dim"] for term in found["terms"]), rel=1e-5)
    assert found["bits_per_dim"] == pytest.approx(sum(found["parts"].values()), rel=1e-5)
    assert len(found["terms"]) == terms
    assert found["space"] == "pixels, 8 bits each"
    told = capsys.readouterr().out
    assert f"{found['bits_per_dim']:.4f} +- {found['standard_error']:.4f} bits/dim" in told
    assert "out/found.json" in told


def test_the_figure_is_the_estimate_written_out(pixels, few_digits):
    found = asked("pixels", few_digits / "val", "--method", "continuous:num_steps=3", "--seed", 5, "--batch-size", 4)
    task = runs.load_diffusion("pixels")
    samples = list(ShardDataset(few_digits / "val", ImageTransform(8, "center", flip=False), 1).samples())
    chosen = [samples[int(place)] for place in torch.linspace(0, 10, 7)[:6]]
    noise = ImageNoise(range(5, 11), (1, 8, 8), torch.device("cpu"))
    noise()  # of the posterior, which is a point here
    labels = torch.tensor([sample["labels"] for sample in chosen])
    with torch.no_grad():
        cond = task.conditioner({"labels": labels}, drop=torch.zeros(6, dtype=torch.bool))
        x0 = torch.stack([sample["image"] for sample in chosen])
        denoise = task.diffusion.denoiser(task.net, cond)
        expected = bits(total(Continuous(3).terms(denoise, task.diffusion.path, x0, noise, levels=256)))
    torch.testing.assert_close(torch.tensor(found["images"]), expected, rtol=1e-3, atol=1e-3)


def test_latents_are_read_or_encoded_on_the_fly(work, few_digits, capsys):
    main(["encode", "ae", str(few_digits / "val"), "latents", "--dtype", "float32", "--num-workers", "0"])
    one, other = (asked("dit", shards, "--method", "ode:num_steps=3") for shards in ("latents", few_digits / "val"))
    assert one["images"] == pytest.approx(other["images"], rel=1e-3, abs=1e-3)
    assert one["space"] == "normalised latents, as a density"


def test_a_model_without_classes_is_asked_without(work, few_digits):
    assert asked("plain", few_digits / "val", "--method", "ode:num_steps=1")["num_images"] == 6


def test_an_image_does_not_depend_on_its_batch(pixels, few_digits):
    method = ("--method", "ode:num_steps=2")
    one, other = (asked("pixels", few_digits / "val", *method, "--batch-size", size) for size in (6, 4))
    assert one["images"] == pytest.approx(other["images"], rel=1e-4)


def test_bad_input_is_refused_in_one_sentence(pixels, few_digits, refused):
    val = few_digits / "val"
    assert "holds an autoencoder" in refused("likelihood", "ae", val)
    assert "Cosine is continuous: use the continuous bound" in refused(
        "likelihood", "pixels", val, "--method", "discrete"
    )
    told = refused("likelihood", "steps", val, "--method", "discrete", "--num-steps", 21)
    assert "num_steps=21 is more than the 20 steps" in told
    told = refused("likelihood", "pixels", val, "--method", "exact")
    assert "There is no method 'exact': choose one of adaptiveode, continuous, discrete, ode" in told
    told = refused("likelihood", "pixels", val, "--method", "adaptiveode", "--num-steps", 3)
    assert "chooses its steps itself: leave --num-steps out" in told
    assert "num_probes=0" in refused("likelihood", "pixels", val, "--method", "ode:num_probes=0")
    assert "--batch-size must be at least 1" in refused("likelihood", "pixels", val, "--batch-size", 0)
    assert "is a folder" in refused("likelihood", "pixels", val, "--out", ".")
    assert "nowhere is not a folder" in refused("likelihood", "pixels", "nowhere")


def test_latents_of_another_autoencoder_are_refused(work, few_digits, refused):
    main(["encode", "ae", str(few_digits / "val"), "latents", "--num-workers", "0"])
    pixel_run("pixels")
    assert "were made by autoencoder" in refused("likelihood", "pixels", "latents")


def test_data_that_the_model_does_not_know_are_refused(work, few_digits, refused):
    pixel_run("three", num_classes=3)
    assert "has 10 classes and the embedder Label 3" in refused("likelihood", "three", few_digits / "val")


def test_a_method_by_name():
    assert make_method("ode", 7).num_steps == 7
    assert make_method("ODE:exact_trace=true", None).exact_trace
    made = make_method("discrete:variance=fixedlarge", None)
    assert isinstance(made, Discrete)
    assert isinstance(made.variance, FixedLarge)


def test_steps_are_shown_in_at_most_ten_groups():
    found = Measured([1.0], [("prior", 1.0), *(("step", 1 - i / 24) for i in range(23)), ("decoder", 0.04)], [0.1] * 25)
    shown = rows(found)
    assert [name for name, _, _ in shown][:2] == ["prior", "3 steps"]
    assert shown[-1][0] == "decoder"
    assert len(shown) <= 12
    assert sum(value for _, _, value in shown) == pytest.approx(2.5)
