"""docs/extending.md adds a sampler in one short file, and it is really there then."""

import math
import re
import subprocess
import sys
from pathlib import Path

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


def test_the_sampler_of_the_page_works_is_short_and_is_offered(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 40
    (tmp_path / "midpoint.py").write_text(code)
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    order = float(re.search(r"^order (.*)$", done.stdout, re.MULTILINE)[1])
    assert math.isclose(order, 2, abs_tol=0.15)
    assert re.search(r"^  midpoint +Deterministic, second order", done.stdout, re.MULTILINE)
