"""The `sample` command: a run or an export, seeds and classes -> pictures on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm import runs
from ldm.cli.by_name import describe, make
from ldm.diffusion.guidance import ClassifierFree, Guidance
from ldm.diffusion.samplers import Sampler
from ldm.errors import UserError
from ldm.images import grid as draw_grid
from ldm.images import save_film, save_png
from ldm.launch import launch
from ldm.sampling import Request, check_request, sample_steps
from ldm.tasks import DiffusionTask


def sample(
    run: str,
    out: str = "samples",
    classes: list[int] | None = None,
    num_images: int = 16,
    sampler: str = "ddim",
    num_steps: int = 50,
    guidance_scale: float = 1.0,
    guidance: list[str] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    grid: bool = False,
    columns: int = 0,
    film: Literal["gif", "webp"] | None = None,
    weights: str = "ema",
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    trust_code: bool = False,
) -> None:
    """Sample images from a trained diffusion model.

    Image i has the seed SEED + i and is the same whatever the batch size and the number of devices. Each PNG carries
    its seed and settings as text entries. OUT then holds the images of this call alone: those that an older call left
    are replaced or removed. Example: sample.py runs/digits/dit --classes 3 7 --guidance-scale 2 --grid

    Args:
        run: run folder of a diffusion model, or its export.
        out: folder for the pictures: 000000.png, 000001.png, ...
        classes: class numbers, dealt to the images in turn; left out, no class is asked for.
        num_images: images in all.
        sampler: a sampler by name, with settings as NAME:KEY=VALUE,KEY=VALUE, for example ddim:eta=0.5,spacing=leading.
        num_steps: steps of the sampler.
        guidance_scale: classifier-free guidance; 1 is off, 1.5 to 4 is usual.
        guidance: further rules by name, with settings as NAME:KEY=VALUE, applied in this order.
        seed: seed of the first image.
        batch_size: images that are sampled at once on one device.
        grid: write all images into one picture, OUT/grid.png, too.
        columns: columns of the grid; 0: one for each class, or about as many as rows.
        film: write OUT/film.gif or OUT/film.webp: how the first batch comes out of the noise.
        weights: ema, raw, or the decay of one of the averages, for example 0.9999.
        accelerator: what computes; auto takes a GPU if there is one.
        devices: devices on each node; more than one share the images.
        num_nodes: nodes; start the command with srun or torchrun on them.
        precision: arithmetic of the networks.
        trust_code: allow the run's config to name classes from outside ldm, which runs their code.
    """
    if num_images < 1 or batch_size < 1:
        raise UserError("--num-images and --batch-size must be at least 1.")
    if columns < 0 or not 0 <= seed < 2**63:
        raise UserError("--columns and --seed must be 0 or more (and --seed below 2**63).")
    chosen = make(Sampler, sampler, "sampler", num_steps=num_steps)
    rules = make_guidance(guidance_scale, guidance or [])
    task = runs.load_diffusion(run, weights, trust_code)
    labels = [classes[i % len(classes)] for i in range(num_images)] if classes else None
    request = Request(range(seed, seed + num_images), labels, rules)
    check_request(task, request)
    check_steps(chosen, task)
    fabric = launch(accelerator, devices, num_nodes, precision)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)  # now, since it may be refused
    task.to(fabric.device)
    width = columns or len(classes or []) or square(num_images)
    frames: list[Image.Image] | None = [] if film and fabric.is_global_zero else None
    about = {"run": run, "weights": weights, "sampler": describe(chosen), "guidance_scale": guidance_scale}
    write_share(fabric, task, request, chosen, folder, about, batch_size, frames, width)
    fabric.barrier()
    if fabric.is_global_zero:
        finish(folder, request, grid, width, film, frames or [])


def write_share(
    fabric: Fabric,
    task: DiffusionTask,
    request: Request,
    sampler: Sampler,
    folder: Path,
    about: dict[str, Any],
    batch_size: int,
    frames: list[Image.Image] | None,
    columns: int,
) -> None:
    """Sample and write every world_size-th image; where `frames` is a list, the first batch is filmed into it."""
    mine = range(fabric.global_rank, len(request.seeds), fabric.world_size)
    with Progress(disable=not fabric.is_global_zero, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sampling", total=len(mine))
        for start in range(0, len(mine), batch_size):
            indices = mine[start : start + batch_size]
            part = request.pick(indices)
            with fabric.autocast():
                images = draw(task, part, sampler, frames if start == 0 else None, columns)
            labels: Sequence[int | None] = part.labels or [None] * len(indices)
            for index, image, seed, label in zip(indices, images, part.seeds, labels, strict=True):
                asked = {} if label is None else {"class": label}
                save_png(image, folder / f"{index:06d}.png", {"seed": seed, **asked, **about})
            progress.advance(bar, len(indices))


def make_guidance(guidance_scale: float, rules: list[str]) -> list[Guidance]:
    """The rules in their order: ClassifierFree at the scale, where that is not 1, and what is asked for besides."""
    try:
        first = [] if guidance_scale == 1 else [ClassifierFree(guidance_scale)]
    except ValueError as error:
        raise UserError(str(error)) from None
    return [*first, *(make(Guidance, rule, "guidance") for rule in rules)]


def check_steps(sampler: Sampler, task: DiffusionTask) -> None:
    """Raise a UserError if the sampler cannot walk the model's path."""
    try:
        sampler.check(task.diffusion.path)
    except ValueError as error:
        raise UserError(f"The sampler does not fit the model: {error}") from None


@torch.inference_mode()
def draw(
    task: DiffusionTask, request: Request, sampler: Sampler, frames: list[Image.Image] | None, columns: int
) -> torch.Tensor:
    """Images (B, C, H, W) in [-1, 1]; where `frames` is a list, what each step holds is appended as a grid, decoded."""
    for step in sample_steps(task, request, sampler):
        if frames is not None:
            frames.append(draw_grid(task.autoencoder.decode(step.x).float(), columns))
        latents = step.x
    return task.autoencoder.decode(latents).float().clamp(-1, 1)


def square(count: int) -> int:
    """Columns that make a grid of `count` images about as wide as high."""
    return max(1, round(count**0.5))


def finish(
    folder: Path, request: Request, grid: bool, columns: int, film: str | None, frames: list[Image.Image]
) -> None:
    """The pictures of the whole, and a line that says where everything is."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    num_images = len(request.seeds)
    removed = remove_older(folder, num_images)
    older = f" ({removed} of an older call removed)" if removed else ""
    console.print(f"{num_images} images in {folder}/{older}")
    if grid:
        images = [pil_to_tensor(Image.open(folder / f"{i:06d}.png")) for i in range(num_images)]
        titles = [f"class {label}" for label in (request.labels or [])[:columns]]
        draw_grid(torch.stack(images) / 127.5 - 1, columns, titles).save(folder / "grid.png")
        console.print(f"their grid: {folder / 'grid.png'}")
    if film:
        save_film(frames, folder / f"film.{film}")
        console.print(f"the film of the first batch: {folder / f'film.{film}'}")


def remove_older(folder: Path, num_images: int) -> int:
    """Remove the images that an older call left beyond the new ones, so that nobody measures a mixture; say how many.

    A numbered PNG goes only if it carries the entries that `sample` writes.
    """
    numbered = [path for path in folder.glob("*.png") if path.stem.isdecimal() and int(path.stem) >= num_images]
    older = [path for path in numbered if is_sample(path)]
    for path in older:
        path.unlink()
    return len(older)


def is_sample(path: Path) -> bool:
    """Whether a PNG carries the entries that `sample` writes."""
    try:
        with Image.open(path) as picture:
            return {"seed", "sampler", "guidance_scale"} <= picture.info.keys()
    except OSError:
        return False
