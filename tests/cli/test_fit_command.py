"""`ldm fit` and `ldm validate`: one folder a run, resumed by the same command; mistakes end in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from made_runs import AUTOENCODER, NET, label_conditioner

from ldm import checkpoints
from ldm.cli import main
from ldm.nn.features import TimmFeatures


def config(few_digits, **changes):
    """A config of the autoencoder on few digits."""
    data = {"shards": f"{few_digits}/train", "val_shards": f"{few_digits}/val"}
    data |= {"batch_size": 12, "size": 8, "channels": 1, "num_workers": 0}
    made = {
        "run": "run",
        "model": {
            "class_path": "ldm.tasks.AutoencoderTask",
            "init_args": {
                "autoencoder": {"class_path": "ldm.autoencoders.KLAutoencoder", "init_args": AUTOENCODER},
                "loss": {"class_path": "ldm.autoencoders.AutoencoderLoss"},
            },
        },
        "data": {"class_path": "ldm.data.ShardData", "init_args": data},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 2,
            "limit_val_batches": 1,
            "num_sanity_val_steps": 0,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "ldm.callbacks.EMA", "init_args": {"decays": [0.5]}}],
        },
        "checkpoint": {"every_n_steps": 1},
    }
    return {**made, **changes}


@pytest.fixture
def work(tmp_path, monkeypatch, few_digits):
    monkeypatch.chdir(tmp_path)
    Path("ae.yaml").write_text(yaml.safe_dump(config(few_digits)))
    return tmp_path


@pytest.fixture
def trained(work):
    """The run has been trained for its two steps."""
    main(["fit", "-c", "ae.yaml"])
    return work / "run"


def state(run):
    return {
        str(path.relative_to(run)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(run.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }


def test_the_same_command_resumes_and_does_nothing_when_all_is_done(trained, capsys):
    assert checkpoints.newest(trained).name == "step-00000002.ckpt"
    before = state(trained)
    main(["fit", "-c", "ae.yaml"])
    assert state(trained) == before
    assert "Resuming from run/checkpoints/step-00000002.ckpt" in capsys.readouterr().out
    main(["fit", "-c", "ae.yaml", "--trainer.max_steps", "3", "--ckpt_path", "last"])
    assert checkpoints.newest(trained).name == "step-00000003.ckpt"
    assert yaml.safe_load((trained / "config.yaml").read_text())["trainer"]["max_steps"] == 3


def test_stopped_and_resumed_it_ends_with_the_same_weights(work):
    main(["fit", "-c", "ae.yaml", "--run", "whole", "--trainer.max_steps", "3"])
    main(["fit", "-c", "ae.yaml", "--run", "parts", "--trainer.max_steps", "2"])
    main(["fit", "-c", "ae.yaml", "--run", "parts", "--trainer.max_steps", "3"])
    whole, parts = (checkpoints.read(checkpoints.newest(work / name)) for name in ("whole", "parts"))
    for name, weight in whole["state_dict"].items():
        if not name.startswith("autoencoder.latent_"):  # measured once more when the fit ended after two steps
            assert torch.equal(weight, parts["state_dict"][name]), name


def test_the_config_in_the_run_folder_is_a_config_to_fit_with(trained):
    before = state(trained)
    main(["fit", "-c", "run/config.yaml"])
    assert state(trained) == before


def test_validate_takes_the_newest_checkpoint_and_its_averages(trained, capsys, refused):
    before = state(trained)
    capsys.readouterr()
    main(["validate", "-c", "ae.yaml"])
    told = capsys.readouterr().out
    for name in ("step-00000002.ckpt", "val/psnr", "val/psnr_ema0.5", "val/total"):  # 8 pixels have no SSIM
        assert name in told
    assert state(trained) == before
    assert "nothing has no whole checkpoint" in refused("validate", "-c", "ae.yaml", "--run", "nothing")


def test_a_checkpoint_cut_short_is_passed_over(trained):
    newest = checkpoints.newest(trained)
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=r"Passing over .*step-00000002\.ckpt: it has .* bytes"):
        main(["fit", "-c", "ae.yaml"])
    assert checkpoints.newest(trained) == newest


MISTAKES = {
    "no config": ([], "fit needs a config: pass -c"),
    "a missing config": (["-c", "gone.yaml"], "gone.yaml"),
    "an unknown key": (["-c", "ae.yaml", "--trainer.max_stepz", "3"], "max_stepz"),
    "a missing argument's value": (["-c", "ae.yaml", "--data.init_args.shards", "gone"], "gone is not a folder"),
    "an unknown argument": (
        ["-c", "ae.yaml", "--model.init_args.autoencoder.init_args.chanels", "3"],
        "KLAutoencoder has no option 'chanels': it has in_channels,",
    ),
    "a wrong type": (["-c", "ae.yaml", "--trainer.max_steps", "few"], "trainer.max_steps: expected int, not few"),
    "a wrong type deep inside": (
        ["-c", "ae.yaml", "--model.init_args.autoencoder.init_args.channels", "few"],
        "channels of ldm.autoencoders.KLAutoencoder: expected int, not few",
    ),
    "a refused value": (["-c", "ae.yaml", "--checkpoint.keep", "0"], "checkpoint.keep is 0"),
    "an unknown class": (["-c", "ae.yaml", "--model.init_args.loss", "ldm.Nothing"], "ldm.Nothing"),
    "a missing checkpoint": (["-c", "ae.yaml", "--ckpt_path", "gone.ckpt"], "There is no checkpoint gone.ckpt"),
    "a bad image size": (["-c", "ae.yaml", "--data.init_args.size", "9"], "multiples of 2"),
    "other channels": (["-c", "ae.yaml", "--data.init_args.channels", "3"], "channel"),
}


@pytest.mark.parametrize(("argv", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_writes_nothing(work, refused, argv, expected):
    assert expected in refused("fit", *argv)
    assert not (work / "run" / "config.yaml").exists()
    assert not (work / "run" / "checkpoints").exists()


@pytest.mark.parametrize("text", ["run: [", "- a\n- b\n", "run: x\nmodel: 5\n", "runn: x\n"])
def test_a_broken_config_is_one_sentence(work, refused, text):
    Path("broken.yaml").write_text(text)
    assert refused("fit", "-c", "broken.yaml")


def test_a_label_beyond_the_classes_never_becomes_no_class(trained, refused, few_digits):
    conditioner = label_conditioner(5, 16)
    flow = {"path": "ldm.diffusion.paths.RectifiedFlow", "prediction": "ldm.diffusion.predictions.Velocity"}
    model = {
        "class_path": "ldm.tasks.DiffusionTask",
        "init_args": {
            "net": {"class_path": "ldm.networks.DiT", "init_args": NET},
            "diffusion": {"class_path": "ldm.diffusion.Diffusion", "init_args": flow},
            "conditioner": conditioner,
            "autoencoder": {"class_path": "ldm.runs.load_autoencoder", "init_args": {"run": "run"}},
        },
    }
    Path("dit.yaml").write_text(yaml.safe_dump(config(few_digits, run="dit", model=model)))
    told = refused("fit", "-c", "dit.yaml")
    assert "has 10 classes and the embedder Label 5: set its num_classes" in told
    assert "num_classes is 5, but" in refused("fit", "-c", "dit.yaml", "--data.init_args.num_classes", "5")
    before = state(trained)
    ten = json.dumps(label_conditioner(10, 16)["init_args"]["embedders"])
    given = ["--model.init_args.conditioner.init_args.embedders", ten, "--run", "run"]
    assert "not of a diffusion model" in refused("fit", "-c", "dit.yaml", *given)
    assert state(trained) == before


def test_a_run_folder_of_another_model_or_other_data_is_refused_untouched(trained, refused):
    before = state(trained)
    other = ["--model.init_args.autoencoder.init_args.channels", "64", "--trainer.max_steps", "9"]
    assert "of another model than the config's: autoencoder." in refused("fit", "-c", "ae.yaml", *other)
    seed = ["--data.init_args.seed", "5", "--trainer.max_steps", "9"]
    assert "seed 0, this run has seed 5" in refused("fit", "-c", "ae.yaml", *seed)
    batch = ["--data.init_args.batch_size", "6", "--trainer.max_steps", "9"]
    assert "batch_size 12, this run has batch_size 6" in refused("fit", "-c", "ae.yaml", *batch)
    Path("not.ckpt").write_bytes(b"hello")  # what Lightning would read before any check of ours
    assert "not.ckpt has no .ok marker" in refused("fit", "-c", "ae.yaml", "--ckpt_path", "not.ckpt")
    assert state(trained) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there(work, refused):
    assert "No supported gpu backend found" in refused("fit", "-c", "ae.yaml", "--trainer.accelerator", "gpu")


def test_in_a_process_of_its_own_a_mistake_ends_with_code_two_and_no_traceback(work):
    argv = [sys.executable, "-m", "ldm", "fit", "-c", "ae.yaml", "--trainer.max_stepz", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, "LDM_DEBUG": ""})
    assert done.returncode == 2
    assert "max_stepz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_cannot_name_the_class_to_build(trained, monkeypatch):
    """Lightning lets the hyper-parameters in a checkpoint override the config's model."""
    Path("evil.py").write_text("import pathlib\npathlib.Path('sung').touch()\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    checkpoint = checkpoints.read(checkpoints.newest(trained))
    checkpoint["hyper_parameters"] = {"_class_path": "evil.Net", "_instantiator": "evil.make"}
    checkpoints.write(checkpoint, Path("given.ckpt"))
    main(["fit", "-c", "ae.yaml", "--ckpt_path", "given.ckpt"])
    assert not Path("sung").exists()


def test_measures_of_the_config_are_logged_and_not_needed_afterwards(work, few_digits, capsys, refused):
    torch.save(TimmFeatures("test_resnet").net(torch.device("cpu")).state_dict(), "features.pth")
    features = {"model": "test_resnet", "weights": "features.pth"}
    features = {"class_path": "ldm.nn.features.TimmFeatures", "init_args": features}
    measure = {"class_path": "ldm.autoencoders.measures.FrechetDistance", "init_args": {"features": features}}
    measured = config(few_digits)
    measured["model"]["init_args"]["measures"] = [measure]
    Path("measured.yaml").write_text(yaml.safe_dump(measured))
    main(["fit", "-c", "measured.yaml"])
    capsys.readouterr()
    main(["validate", "-c", "measured.yaml"])
    told = capsys.readouterr().out
    assert all(name in told for name in ("val/rfid ", "val/rfid_ema0.5 ", "val/latent_std/0 "))
    Path("features.pth").unlink()
    main(["export", "run", "out"])
    assert "measures" not in yaml.safe_load(Path("out/config.yaml").read_text())["model"]["init_args"]
    assert "features.pth, and there is no such file" in refused("validate", "-c", "measured.yaml")
