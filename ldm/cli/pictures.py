"""What `sample` writes: PNGs that carry their seed and settings, a grid of them, a film of how they came to be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm.diffusion.samplers import Sampler
from ldm.images import grid as draw_grid
from ldm.images import save_film, save_png
from ldm.sampling import Request, sample_steps
from ldm.tasks import DiffusionTask


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
    what = "1 image" if num_images == 1 else f"{num_images} images"
    console.print(f"{what} in {folder}/{older}")
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
