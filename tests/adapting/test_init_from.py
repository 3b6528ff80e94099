"""`init_from` in a config: a new run starts from another's weights, and a resumed one does not look there."""

import json
import shutil
from pathlib import Path

import torch
import yaml
from made_runs import NET, autoencoder_run, diffusion_run, label_conditioner

from ldm import checkpoints, runs
from ldm.cli import main


def config(few_digits):
    """The model of the run `old` with one block more, and a learning rate of zero."""
    data = {"shards": f"{few_digits}/train", "batch_size": 12, "size": 8, "channels": 1, "flip": False}
    return {
        "run": "new",
        "model": {
            "class_path": "ldm.tasks.DiffusionTask",
            "init_args": {
                "net": {"class_path": "ldm.networks.DiT", "init_args": {**NET, "depth": 2}},
                "diffusion": {
                    "class_path": "ldm.diffusion.Diffusion",
                    "init_args": {
                        "path": "ldm.diffusion.paths.RectifiedFlow",
                        "prediction": "ldm.diffusion.predictions.Velocity",
                    },
                },
                "conditioner": label_conditioner(10, NET["width"]),
                "autoencoder": {"class_path": "ldm.runs.load_autoencoder", "init_args": {"run": "ae"}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.0}},
                "init_from": "old",
            },
        },
        "data": {"class_path": "ldm.data.ShardData", "init_args": {**data, "num_workers": 0}},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "ldm.callbacks.EMA", "init_args": {"decays": [0.5]}}],
        },
        "checkpoint": {"every_n_steps": 1},
    }


def test_a_new_run_and_its_average_start_from_the_weights_and_a_resumed_one_does_not(
    tmp_path, monkeypatch, few_digits, capsys
):
    monkeypatch.chdir(tmp_path)
    old = diffusion_run("old", autoencoder_run("ae"))
    Path("new.yaml").write_text(yaml.safe_dump(config(few_digits)))
    main(["fit", "-c", "new.yaml"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Weights from old" in told
    assert "net.blocks.1.modulation.weight" in told
    saved, source = checkpoints.read(checkpoints.newest(Path("new"))), runs.load(old).state_dict()
    report = json.loads(Path("new/init_from.json").read_text())
    kept = {entry["name"] for entry in report["kept"]}
    assert kept == {name for name in source if not name.startswith("autoencoder.")}
    for name in kept:
        assert torch.equal(saved["state_dict"][name], source[name])
        torch.testing.assert_close(saved["ema"]["0.5"]["weights"][name], source[name])
    assert runs.load("new").net.depth == 2
    shutil.rmtree("old")
    main(["fit", "-c", "new.yaml", "--trainer.max_steps", "2"])
    assert checkpoints.read(checkpoints.newest(Path("new")))["global_step"] == 2
