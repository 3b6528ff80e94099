"""The `sample` command: a run or an export, seeds, classes and perhaps pictures -> pictures on disk."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from ldm import runs
from ldm.cli.by_name import describe, find, known, listing, make
from ldm.cli.pictures import finish, square, write_share
from ldm.diffusion.guidance import ClassifierFree, Guidance, check_rules
from ldm.diffusion.samplers import Sampler
from ldm.diffusion.spacings import Spacing
from ldm.editing import between, from_images
from ldm.errors import UserError
from ldm.launch import launch
from ldm.sampling import Edit, Request, check_request
from ldm.tasks import DiffusionTask


def sample(
    run: str,
    out: str = "samples",
    classes: list[int] | None = None,
    num_images: int = 16,
    sampler: str = "ddim",
    num_steps: int | None = None,
    guidance_scale: float = 1.0,
    guidance: list[str] | None = None,
    negative_classes: list[int] | None = None,
    weak_run: str | None = None,
    classifier: str | None = None,
    two_passes: bool = False,
    temperature: float = 1.0,
    images: list[str] | None = None,
    strength: float | None = None,
    mask: str | None = None,
    interpolate: bool = False,
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
        sampler: a sampler of the list below, with settings as NAME:KEY=VALUE,KEY=VALUE: ddim:eta=0.5,spacing=leading.
        num_steps: steps of the sampler; left out, its own default.
        guidance_scale: classifier-free guidance; 1 is off, 1.5 to 4 is usual.
        guidance: rules of the list below, as NAME:KEY=VALUE, applied in this order after --guidance-scale.
        negative_classes: classes to be guided away from, dealt in turn; left out, away from no class.
        weak_run: run folder of a worse model, for the rule autoguidance.
        classifier: for the rule classifierguidance, a function package.name (x_t, t) -> logits; needs --trust-code.
        two_passes: ask with and without the class in two passes: half the memory, slower on a GPU.
        temperature: standard deviation of all noise; under 1 the samples are more alike.
        images: pictures to start from, dealt in turn; noised to STRENGTH and denoised again.
        strength: of --images: 0.3 keeps most, 1 forgets them; left out, 0.7, and 1 with a mask.
        mask: with --images: a picture, white where the model is to paint; --sampler repaint fits best.
        interpolate: go from the noise of SEED to that of SEED + 1, or between the two pictures of --images.
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
        trust_code: let the run's config and --classifier name what is not of ldm, and run its code.
    """
    if num_images < 1 or batch_size < 1:
        raise UserError("--num-images and --batch-size must be at least 1.")
    if columns < 0 or not 0 <= seed < 2**63:
        raise UserError("--columns and --seed must be 0 or more (and --seed below 2**63).")
    chosen = make(Sampler, sampler, "sampler", **({} if num_steps is None else {"num_steps": num_steps}))
    rules = make_guidance(guidance_scale, guidance or [], load_classifier(classifier, trust_code))
    task = runs.load_diffusion(run, weights, trust_code)
    request = Request(
        range(seed, seed + num_images),
        deal(classes, num_images),
        rules,
        deal(negative_classes, num_images),
        two_passes,
        None if weak_run is None else runs.load_diffusion(weak_run, weights, trust_code),
        temperature=temperature,
    )
    check_request(task, request)
    check_sampler(chosen, task, rules, mask)
    fabric = launch(accelerator, devices, num_nodes, precision)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)  # now, since it may be refused
    move_to(fabric.device, task, request.weak)
    request = replace(request, edit=make_edit(task, request, images or [], strength, mask, interpolate, chosen))
    width = columns or len(classes or []) or square(num_images)
    frames: list[Image.Image] | None = [] if film and fabric.is_global_zero else None
    about = {"run": run, "weights": weights, "sampler": describe(chosen), "guidance_scale": guidance_scale}
    further = {"guidance": ", ".join(map(describe, rules[guidance_scale != 1 :])), "weak_run": weak_run, "mask": mask}
    further |= {"images": " ".join(images or []), "strength": str(request.edit.strength) if images else None}
    about |= {key: value for key, value in further.items() if value}
    write_share(fabric, task, request, chosen, folder, about, batch_size, frames, width)
    fabric.barrier()
    if fabric.is_global_zero:
        finish(folder, request, grid, width, film, frames or [])


def choices() -> str:
    """What --help lists below the options: every sampler, rule and spacing, and when to pick it."""
    return "\n".join(
        (
            listing(Sampler, "samplers (--sampler)"),
            listing(Spacing, "spacings (--sampler NAME:spacing=SPACING)"),
            listing(Guidance, "guidance rules (--guidance)"),
        )
    )


def deal(classes: list[int] | None, count: int) -> list[int] | None:
    """The classes in turn, one an image; None where none are named."""
    return [classes[i % len(classes)] for i in range(count)] if classes else None


def move_to(device: torch.device, *tasks: DiffusionTask | None) -> None:
    for task in tasks:
        if task is not None:
            task.to(device)


def make_guidance(
    guidance_scale: float, names: list[str], classifier: Callable[[Tensor, Tensor], Tensor] | None
) -> list[Guidance]:
    """The rules in their order: ClassifierFree at the scale, where that is not 1, and what is asked for besides."""
    try:
        rules: list[Guidance] = [] if guidance_scale == 1 else [ClassifierFree(guidance_scale)]
        for name in names:
            takes_it = "classifier" in inspect.signature(find(Guidance, name.partition(":")[0], "guidance")).parameters
            given = {"classifier": classifier} if takes_it and classifier is not None else {}
            rules.append(make(Guidance, name, "guidance", **given))
        check_rules(rules)
    except ValueError as error:
        raise UserError(str(error)) from None
    if classifier is not None and not any(rule.needs_labels for rule in rules):
        raise UserError("--classifier is for the rule classifierguidance: add --guidance classifierguidance.")
    return rules


def load_classifier(name: str | None, trust_code: bool) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The function that a dotted name stands for; importing it runs its code, so the user has to say so."""
    if name is None:
        return None
    if not trust_code:
        raise UserError(f"--classifier {name} runs the code of that module: if you trust it, pass --trust-code.")
    module, _, function = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # the module may fail in any way of its own
        raise UserError(f"--classifier {name} cannot be imported ({error}): write package.module.function.") from None
    return found


def check_sampler(sampler: Sampler, task: DiffusionTask, rules: list[Guidance], mask: str | None) -> None:
    """Raise a UserError if the sampler cannot walk the model's path, or not go on from where a rule moves the state."""
    try:
        sampler.check(task.diffusion.path)
        task.check_variance(getattr(sampler, "variance", None))
    except ValueError as error:
        raise UserError(f"The sampler {type(sampler).__name__} does not fit the model: {error}") from None
    movers = [type(rule).__name__ for rule in rules if rule.moves] + ["--mask"] * (mask is not None)
    if movers and not sampler.obeys_moves:
        fit = [name for name, leaf in known(Sampler).items() if leaf().obeys_moves and walks(leaf(), task)]
        raise UserError(
            f"{movers[0]} moves the state at each step and {type(sampler).__name__} does not go on from there: use "
            f"one of {', '.join(fit)}."
        )


def walks(sampler: Sampler, task: DiffusionTask) -> bool:
    try:
        sampler.check(task.diffusion.path)
    except ValueError:
        return False
    return True


def make_edit(
    task: DiffusionTask,
    request: Request,
    images: list[str],
    strength: float | None,
    mask: str | None,
    interpolate: bool,
    sampler: Sampler,
) -> Edit:
    """What sampling starts from besides noise."""
    if interpolate:
        for option, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise UserError(f"{option} has no meaning with --interpolate: leave one of them out.")
        return between(task, request, images, sampler)
    if not images:
        for option, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise UserError(f"{option} is about given pictures: name them with --images, or leave it out.")
        return Edit()
    usual = 0.7 if mask is None else 1.0
    return from_images(task, images, len(request.seeds), usual if strength is None else strength, mask, sampler)
