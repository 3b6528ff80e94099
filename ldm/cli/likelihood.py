"""The `likelihood` command: a run and images -> bits per dimension."""

import inspect
import math
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ldm import runs
from ldm.cli.by_name import describe, find, make
from ldm.diffusion.likelihood import Likelihood
from ldm.diffusion.paths import NoisePath
from ldm.errors import UserError
from ldm.launch import launch
from ldm.likelihood import Images, Measured, check_method, measure, write_report

GROUPS = 10  # rows of the table that the steps are summed into


def likelihood(
    run: str,
    shards: str,
    method: str = "ode",
    num_images: int = 256,
    num_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    weights: str = "ema",
    out: str | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    trust_code: bool = False,
) -> None:
    """How probable a diffusion model holds images, in bits per dimension; less is better.

    A model in pixels is asked for the probability of 8-bit pixels. A model of latents is asked for the density of the
    normalised latents, per latent dimension: it may be negative, and can be compared under one autoencoder only.
    A class-conditional model is asked with each image's own class. Example: ldm likelihood runs/digits/dit
    data/digits/val --method ode:exact_trace=true

    Args:
        run: run folder of a diffusion model, or its export.
        shards: folder of image shards, or of latent shards made with the model's autoencoder.
        method: ode and adaptiveode: the exact likelihood; discrete (for discrete paths) and continuous: bounds on it.
            Settings as NAME:KEY=VALUE,KEY=VALUE, for example ode:exact_trace=true.
        num_images: images, spread evenly over the set; 0: all.
        num_steps: steps of the method; left out, its own (discrete: every step of the path).
        seed: seed of the noise; image i has the noise of SEED + i.
        batch_size: images at once.
        weights: ema, raw, or the decay of one of the averages, for example 0.9999.
        out: a JSON file for the figures, each image and each term of them.
        accelerator: what computes; auto takes a GPU if there is one.
        precision: arithmetic of the network.
        trust_code: allow the run's config to name classes from outside ldm, which runs their code.
    """
    if num_images < 0 or batch_size < 1 or not 0 <= seed < 2**62:
        raise UserError("--batch-size must be at least 1, --num-images and --seed 0 or more (--seed below 2**62).")
    if out is not None and Path(out).is_dir():
        raise UserError(f"--out {out} is a folder: give the name of a JSON file.")
    chosen = make_method(method, num_steps)
    task = runs.load_diffusion(run, weights, trust_code)
    check_method(chosen, task)
    images = Images(task, shards, num_images)
    fabric = launch(accelerator, 1, 1, precision)
    task.to(fabric.device).requires_grad_(False)
    with Progress(console=Console(stderr=True)) as progress:
        num_terms = chosen.num_terms(cast(NoisePath, task.diffusion.path))
        bar = progress.add_task("likelihood", total=len(images) * num_terms)
        found = measure(task, images, chosen, seed, batch_size, fabric, lambda count: progress.advance(bar, count))
    space = "pixels, 8 bits each" if task.autoencoder.in_pixels else "normalised latents, as a density"
    show(found, chosen, space)
    if out is not None:
        about = {"run": run, "shards": shards, "method": describe(chosen), "weights": weights, "seed": seed}
        write_report(Path(out), {**about, "space": space}, found)
        Console(highlight=False, soft_wrap=True, markup=False).print(f"Everything in numbers: {out}")


def make_method(text: str, num_steps: int | None) -> Likelihood:
    """The method that NAME or NAME:KEY=VALUE describes, with the steps asked for."""
    name = text.partition(":")[0]
    given: dict[str, Any] = {} if num_steps is None else {"num_steps": num_steps}
    if given and "num_steps" not in inspect.signature(find(Likelihood, name, "method")).parameters:
        raise UserError(f"The method {name} chooses its steps itself: leave --num-steps out, or use the method ode.")
    made: Likelihood = make(Likelihood, text, "method", **given)
    return made


def show(found: Measured, method: Likelihood, space: str) -> None:
    """Print the figure and what it is made of."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("part", "t", "bits/dim", title=f"{type(method).__name__}, {space}", title_justify="left")
    for name, times, value in rows(found):
        table.add_row(name, times, f"{value:.4f}")
    console.print(table)
    error = f" +- {found.standard_error:.4f}" if math.isfinite(found.standard_error) else ""
    what = "at most, " if method.bounds or space.startswith("pixels") else ""
    console.print(f"{found.mean:.4f}{error} bits/dim ({what}mean of {len(found.images)} images)", markup=False)


def rows(found: Measured) -> list[tuple[str, str, float]]:
    """Name, times and bits per dimension: the steps in at most ten groups, everything else by itself."""
    means = found.means()
    steps = [(t, value) for name, t, value in means if name == "step"]
    size = math.ceil(len(steps) / GROUPS) or 1
    groups = [steps[start : start + size] for start in range(0, len(steps), size)]
    shown = [
        (f"{len(group)} steps" if len(group) > 1 else "step", span(group), sum(value for _, value in group))
        for group in groups
    ]
    others = [(name, f"{t:.4g}", value) for name, t, value in means if name != "step"]
    return [*others[:1], *shown, *others[1:]]


def span(group: list[tuple[float, float]]) -> str:
    first, last = group[0][0], group[-1][0]
    return f"{first:.4g}" if first == last else f"{first:.4g} to {last:.4g}"
