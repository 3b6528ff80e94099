"""The guided tour: every step parses, what is done is not done again, and the whole of it keeps its word."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm import quickstart
from ldm.cli import all_commands
from ldm.cli.sample import sample
from ldm.cli.signature import build_parser
from ldm.cli.training import TrainingCLI
from ldm.data import pack
from ldm.encoding import encode
from ldm.images import save_png
from ldm.quickstart import OUT, configs, tour

SIGNATURES = {"pack": pack, "encode": encode, "sample": sample}


class Parsed(Exception):
    pass


@pytest.mark.parametrize("folder", [OUT, "elsewhere/tour"])
def test_every_command_of_the_tour_parses(folder, monkeypatch):
    def stop(self):
        raise Parsed(self.config)

    monkeypatch.setattr(TrainingCLI, "instantiate_classes", stop)
    written = []
    for title, (name, *argv) in tour(Path(folder), 1.5):
        assert title
        assert name in all_commands()
        if name == "fit":
            with pytest.raises(Parsed) as parsed:
                TrainingCLI([name, *argv])
            (config,) = parsed.value.args
            written.append(config["fit"]["run"])
            for key in ("shards", "val_shards"):
                assert config["fit"]["data"]["init_args"][key].startswith(f"{folder}/")
        else:
            options = vars(build_parser(SIGNATURES[name], name).parse_args(argv))
            written.append(options["out"])
    assert all(path.startswith(f"{folder}/") for path in written)
    assert len(set(written)) == len(written)


def test_the_autoencoder_that_is_trained_is_the_one_that_is_used():
    for folder in (OUT, "elsewhere"):
        commands = [command for _, command in tour(Path(folder), 1.5)]
        assert [c[1] for c in commands if c[0] == "encode"] == [f"{folder}/autoencoder"] * 2
        assert [c[1] for c in commands if c[0] == "sample"] == [f"{folder}/dit"] * 2
    assert (configs() / "quickstart" / "dit.yaml").is_file()


def test_it_runs_each_command_once_and_skips_shards_that_are_there(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(quickstart, "report", lambda *args: None)
    quickstart.quickstart(ran.append, out=str(tmp_path))
    assert [command[0] for command in ran] == ["pack", "fit", "encode", "encode", "fit", "sample", "sample"]
    assert f"ldm pack digits {tmp_path}/shards" in capsys.readouterr().out
    for name in ("train", "val"):
        (tmp_path / "shards" / name).mkdir(parents=True)
        (tmp_path / "shards" / name / "manifest.json").write_text("{}")
    ran.clear()
    quickstart.quickstart(ran.append, out=str(tmp_path))
    assert [command[0] for command in ran] == ["fit", "encode", "encode", "fit", "sample", "sample"]
    assert "there already" in capsys.readouterr().out


def test_the_report_measures_what_it_says(tmp_path, packed_digits, monkeypatch, capsys):
    """Held-out digits in the place of samples are read as their class as often as held-out digits are."""
    monkeypatch.setattr(quickstart.runs, "trained_size", lambda folder: 8)
    monkeypatch.setattr(quickstart, "reconstruction_psnr", lambda folder, images: 30.0)
    (tmp_path / "shards").symlink_to(packed_digits)
    images, labels = quickstart.digits(tmp_path / "shards" / "val", 8)
    monkeypatch.setattr(quickstart, "MEASURED", len(images))
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        save_png(image, tmp_path / "measured" / f"{number:06d}.png", {"class": label})
    quickstart.report(tmp_path, 1.5)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["agreement"][0] == found["agreement"][1] > 0.95
    assert found["precision"][0] == found["recall"][0] == 1.0
    assert 0.5 < found["precision"][1] < 1.0
    assert (found["psnr"], found["num_samples"], found["guidance_scale"]) == (30.0, len(images), 1.5)
    assert "PSNR 30.0 dB" in capsys.readouterr().out
    samples, asked = quickstart.generated(tmp_path / "measured")
    assert torch.allclose(samples, images, atol=1 / 255)
    assert np.array_equal(asked, labels)


@pytest.mark.slow
def test_the_whole_tour(tmp_path):
    command = [sys.executable, "-m", "ldm", "quickstart", "--out", str(tmp_path / "tour")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "tour" / "report.json").read_text())
    assert found["psnr"] >= 28
    assert found["agreement"][0] >= 0.97
    assert found["recall"][0] >= 0.5
    with Image.open(tmp_path / "tour" / "samples" / "grid.png") as grid:
        assert grid.width > 600
    assert (tmp_path / "tour" / "samples" / "film.gif").is_file()
    assert str(tmp_path / "tour" / "samples" / "grid.png") in done.stdout.replace("\n", "")
