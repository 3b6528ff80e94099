"""docs/extending.md adds a sampler and a condition in one short file each, and they are really there then."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ldm

PAGE = Path(ldm.__file__).parents[1] / "docs" / "extending.md"

USE = """
import math, sys
import torch
import ldm.diffusion.samplers as samplers
samplers.__path__.append(sys.argv[1])  # as if the file lay in the package
from ldm.cli import main
from ldm.cli.by_name import make
from ldm.diffusion import Denoised
from ldm.diffusion.paths import Cosine, level
from ldm.diffusion.spacings import Linspace
path, eps = Cosine(), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

def denoise(x_t, t):  # of data N(0, 4), whose ODE has a closed form
    alpha, sigma = path.alpha(t), path.sigma(t)
    return Denoised(4 * alpha / (4 * alpha**2 + sigma**2) * x_t)

def spread(t):
    return math.hypot(2 * level(path, t).alpha, level(path, t).sigma)

def error(num_steps):
    sampler = make(samplers.Sampler, "midpoint:spacing=linspace", "sampler", num_steps=num_steps)
    last = [step for step in sampler.steps(denoise, path, eps, None)][-2]
    return float((last.x - eps * spread(last.t) / spread(path.t_max)).abs().max())

print("order", math.log2(error(20) / error(40)))
main(["sample", "--help"])
"""


ASK = """
import json, sys
from pathlib import Path
import yaml
from PIL import Image
import ldm.conditioners
ldm.conditioners.__path__.append(sys.argv[1])  # as if the file lay in the package
from ldm.cli import main
for day in range(4):
    Path("fields").mkdir(exist_ok=True)
    Image.new("L", (8, 8), 60 * day).save(f"fields/{day}.png")
    Path(f"fields/{day}.json").write_text(json.dumps({"day": 90 * day}))
main(["pack", "fields", "shards"])
block = yaml.safe_load(Path("block.yaml").read_text())["conditioner"]
block["init_args"]["embedders"][0]["init_args"]["width"] = 8
net = {"input_size": 8, "in_channels": 1, "patch_size": 4, "width": 8, "depth": 1, "num_heads": 1}
parts = {"path": "ldm.diffusion.paths.Cosine", "prediction": "ldm.diffusion.predictions.V"}
model = {
    "net": {"class_path": "ldm.networks.DiT", "init_args": net},
    "diffusion": {"class_path": "ldm.diffusion.Diffusion", "init_args": parts},
    "conditioner": block,
    "autoencoder": {"class_path": "ldm.autoencoders.Pixels", "init_args": {"in_channels": 1}},
}
config = {
    "run": "run",
    "model": {"class_path": "ldm.tasks.DiffusionTask", "init_args": model},
    "data": {
        "class_path": "ldm.data.ShardData",
        "init_args": {"shards": "shards", "size": 8, "channels": 1, "batch_size": 4, "num_workers": 0},
    },
    "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 1, "logger": False, "enable_progress_bar": False},
}
Path("day.yaml").write_text(yaml.safe_dump(config))
main(["fit", "-c", "day.yaml"])
main(["sample", "run", "--condition", "day=172", "--num-images", "1", "--num-steps", "2", "--accelerator", "cpu"])
print("asked", Image.open("samples/000000.png").info["day"])
"""


@pytest.mark.slow
def test_the_condition_of_the_page_is_trained_and_asked_for(tmp_path):
    page = PAGE.read_text()
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Day" in c)
    assert len(code.splitlines()) < 40
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "day.py").write_text(code)
    (tmp_path / "block.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    command = [sys.executable, "-c", ASK, str(tmp_path / "files")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "asked 172" in done.stdout


def test_the_sampler_of_the_page_works_is_short_and_is_offered(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 40
    (tmp_path / "midpoint.py").write_text(code)
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    order = float(re.search(r"^order (.*)$", done.stdout, re.MULTILINE)[1])
    assert math.isclose(order, 2, abs_tol=0.15)
    assert re.search(r"^  midpoint +Deterministic, second order", done.stdout, re.MULTILINE)
