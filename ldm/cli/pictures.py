"""What `sample` writes: PNGs that carry their seed and settings, a grid of them, a film of how they came to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm.cli.plan import Plan
from ldm.conditioners.captions import all_cuts_told
from ldm.diffusion.samplers import Sampler, Step
from ldm.images import grid as draw_grid
from ldm.images import save_film, save_png
from ldm.sampling import Request, sample_images
from ldm.tasks import DiffusionTask


@all_cuts_told()
def write_share(
    fabric: Fabric,
    task: DiffusionTask,
    plan: Plan,
    sampler: Sampler,
    folder: Path,
    about: dict[str, Any],
    batch_size: int,
    frames: list[Image.Image] | None,
    decode: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Sample and write every world_size-th image; where `frames` is a list, the first batch is filmed into it."""
    mine = range(fabric.global_rank, len(plan), fabric.world_size)
    filmed = frames
    with Progress(disable=not fabric.is_global_zero, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sampling", total=len(mine))
        for places in plan.batches(mine, batch_size):
            part = plan.pick(places)
            with fabric.autocast():
                images = draw(task, part, sampler, filmed, plan.columns, decode)
            filmed = None
            for place, image, seed in zip(places, images, part.seeds, strict=True):
                own = {"seed": seed, **plan.entries[place], "guidance_scale": plan.scales[place]}
                save_png(image, folder / f"{place:06d}.png", {**own, **about})
            progress.advance(bar, len(places))


def draw(
    task: DiffusionTask,
    request: Request,
    sampler: Sampler,
    frames: list[Image.Image] | None,
    columns: int,
    decode: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Images (B, C, H, W) in [-1, 1]; where `frames` is a list, what each step holds is appended as a grid, decoded."""

    def see(step: Step) -> None:
        if frames is not None:
            frames.append(draw_grid(decode(step.x).float(), columns))

    return sample_images(task, request, sampler, see, decode)


def finish(folder: Path, plan: Plan, grid: bool, film: str | None, frames: list[Image.Image]) -> None:
    """The pictures of the whole, and a line that says where everything is."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    removed = remove_older(folder, len(plan))
    older = f" ({removed} of an older call removed)" if removed else ""
    what = "1 image" if len(plan) == 1 else f"{len(plan)} images"
    console.print(f"{what} in {folder}/{older}")
    if grid:
        images = [pil_to_tensor(Image.open(folder / f"{i:06d}.png")) for i in range(len(plan))]
        draw_grid(torch.stack(images) / 127.5 - 1, plan.columns, *plan.labels()).save(folder / "grid.png")
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
