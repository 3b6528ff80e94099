"""The `sample` command: a run or an export, seeds, classes and perhaps pictures -> pictures on disk."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ldm import runs
from ldm.autoencoders import Autoencoder
from ldm.autoencoders.tiling import decoding
from ldm.cli.asking import Asked, Said
from ldm.cli.by_name import describe, find, known, listing, make
from ldm.cli.pictures import finish, write_share
from ldm.cli.plan import make_plan
from ldm.diffusion.guidance import ClassifierFree, Guidance, check_rules
from ldm.diffusion.samplers import Sampler
from ldm.diffusion.spacings import Spacing
from ldm.editing import between, from_images
from ldm.errors import UserError
from ldm.launch import launch
from ldm.sampling import Edit, Request, check_request
from ldm.sampling.checks import check_decoder
from ldm.tasks import DiffusionTask


def sample(
    run: str,
    out: str = "samples",
    classes: list[str] | None = None,
    prompt: list[str] | None = None,
    prompts: str | None = None,
    condition: list[str] | None = None,
    num_images: int | None = None,
    sampler: str = "ddim",
    num_steps: int | None = None,
    guidance_scale: list[float] | None = None,
    guidance: list[str] | None = None,
    negative_classes: list[str] | None = None,
    negative_prompt: list[str] | None = None,
    weak_run: str | None = None,
    classifier: str | None = None,
    two_passes: bool = False,
    temperature: float = 1.0,
    images: list[str] | None = None,
    strength: float | None = None,
    mask: str | None = None,
    interpolate: bool = False,
    seed: int = 0,
    same_seed: bool = False,
    batch_size: int = 64,
    tile: int | None = None,
    decoder: str | None = None,
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
    are replaced or removed. Lists are dealt to the images in turn. Examples: sample.py runs/digits/dit --classes 3 7
    --guidance-scale 2 --grid; sample.py runs/shapes/dit_cross --prompt "a red circle" "a blue circle" --guidance-scale
    1.5 --same-seed --grid

    Args:
        run: run folder of a diffusion model, or its export.
        out: folder for the pictures: 000000.png, 000001.png, ...
        classes: classes by number or name; left out, no class is asked for.
        prompt: texts to draw.
        prompts: a file of them, one a line, or .jsonl with "prompt", "negative" and "seed"; an image of each.
        condition: other conditions that the model takes, as KEY=VALUE; a picture is named by its file.
        num_images: images in all; left out, one for each line of --prompts, or 16, or whole rows from 16 on.
        sampler: one of the list below, with settings as in ddim:eta=0.5,spacing=leading.
        num_steps: steps of the sampler; left out, its own default.
        guidance_scale: classifier-free guidance; left out, 1: off; 1.5 to 8 is usual; several: one a row or column.
        guidance: rules of the list below, as NAME:KEY=VALUE, applied in this order after --guidance-scale.
        negative_classes: classes to be guided away from; left out, away from no class.
        negative_prompt: texts to be guided away from, where a line of --prompts has none of its own.
        weak_run: run folder of a worse model, for the rule autoguidance.
        classifier: for the rule classifierguidance, package.function of (x_t, t) to logits; needs --trust-code.
        two_passes: ask with and without the condition in two passes: half the memory, slower on a GPU.
        temperature: standard deviation of all noise; under 1 the samples are more alike.
        images: pictures to start from; noised to STRENGTH and denoised again.
        strength: of --images: 0.3 keeps most, 1 forgets them; left out, 0.7, and 1 with a mask.
        mask: with --images: a picture, white where the model is to paint; --sampler repaint fits best.
        interpolate: go from the noise of SEED to that of SEED + 1, or between the two pictures of --images.
        seed: seed of the first image.
        same_seed: one seed for all prompts (classes, ...) and scales: SEED for the first of each, then SEED + 1.
        batch_size: images that are sampled at once on one device.
        tile: encode and decode in tiles of so many pixels a side: large images in bounded memory.
        decoder: run folder of a decoder of the same latents, such as a TinyDecoder, to draw with: a preview.
        grid: write all images into one picture, OUT/grid.png, too, labelled.
        columns: columns of the grid; 0: one a class, prompt or else scale, or as many as rows.
        film: write OUT/film.gif or OUT/film.webp: how the first batch comes out of the noise.
        weights: ema, raw, or the decay of one of the averages, for example 0.9999.
        accelerator: what computes; auto takes a GPU if there is one.
        devices: devices on each node; more than one share the images.
        num_nodes: nodes; start the command with srun or torchrun on them.
        precision: arithmetic of the networks.
        trust_code: let the run's config and --classifier name what is not of ldm, and run its code.
    """
    if (num_images is not None and num_images < 1) or batch_size < 1:
        raise UserError("--num-images and --batch-size must be at least 1.")
    if columns < 0 or not 0 <= seed < 2**63:
        raise UserError("--columns and --seed must be 0 or more (and --seed below 2**63).")
    chosen = make(Sampler, sampler, "sampler", **({} if num_steps is None else {"num_steps": num_steps}))
    scales = guidance_scale or [1.0]
    further = make_guidance(guidance or [], load_classifier(classifier, trust_code))
    rules = {scale: with_scale(scale, further, alone=len(scales) == 1) for scale in scales}
    task = runs.load_diffusion(run, weights, trust_code)
    said = Asked(classes, prompt, prompts, condition, negative_classes, negative_prompt).read(task.conditioner)
    check_avoided(said, rules)
    pictures = 0 if interpolate else len(images or [])
    plan = make_plan(said, rules, scales, num_images, seed, same_seed, pictures, columns)
    drawing = task.autoencoder if decoder is None else load_decoder(task, decoder, trust_code)
    decode = make_decode(drawing, tile)
    weak = None if weak_run is None else runs.load_diffusion(weak_run, weights, trust_code)
    request = replace(plan.request, two_passes=two_passes, weak=weak, temperature=temperature)
    for chosen_rules in rules.values():
        check_request(task, replace(request, guidance=chosen_rules))
        check_sampler(chosen, task, chosen_rules, mask)
    fabric = launch(accelerator, devices, num_nodes, precision)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)  # now, since it may be refused
    move_to(fabric.device, task, weak, drawing)
    edit = make_edit(task, request, images or [], strength, mask, interpolate, chosen, tile)
    plan = replace(plan, request=replace(request, edit=edit))
    frames: list[Image.Image] | None = [] if film and fabric.is_global_zero else None
    about = {"run": run, "weights": weights, "sampler": describe(chosen)}
    others = {"guidance": ", ".join(map(describe, further)), "weak_run": weak_run, "mask": mask, "decoder": decoder}
    others |= {"images": " ".join(images or []), "strength": str(edit.strength) if images else None}
    about |= {key: value for key, value in others.items() if value}
    write_share(fabric, task, plan, chosen, folder, about, batch_size, frames, decode)
    fabric.barrier()
    if fabric.is_global_zero:
        finish(folder, plan, grid, film, frames or [])


def choices() -> str:
    """What --help lists below the options: every sampler, rule and spacing, and when to pick it."""
    return "\n".join(
        (
            listing(Sampler, "samplers (--sampler)"),
            listing(Spacing, "spacings (--sampler NAME:spacing=SPACING)"),
            listing(Guidance, "guidance rules (--guidance)"),
        )
    )


def move_to(device: torch.device, *modules: nn.Module | None) -> None:
    for module in modules:
        if module is not None:
            module.to(device)


def load_decoder(task: DiffusionTask, run: str, trust_code: bool) -> Autoencoder:
    """The decoder of a run, which has to speak of the model's latents."""
    decoder = runs.load_autoencoder(run, trust_code)
    check_decoder(task, decoder)
    return decoder


def make_decode(autoencoder: Autoencoder, tile: int | None) -> Callable[[Tensor], Tensor]:
    """What draws latents, as a whole or in tiles."""
    try:
        return decoding(autoencoder, tile)
    except ValueError as error:
        raise UserError(f"--tile: {error}") from None


def make_guidance(names: list[str], classifier: Callable[[Tensor, Tensor], Tensor] | None) -> list[Guidance]:
    """The rules that are asked for besides the guidance scale."""
    rules: list[Guidance] = []
    for name in names:
        takes_it = "classifier" in inspect.signature(find(Guidance, name.partition(":")[0], "guidance")).parameters
        given = {"classifier": classifier} if takes_it and classifier is not None else {}
        rules.append(make(Guidance, name, "guidance", **given))
    if classifier is not None and not any(rule.needs_labels for rule in rules):
        raise UserError("--classifier is for the rule classifierguidance: add --guidance classifierguidance.")
    return rules


def with_scale(guidance_scale: float, further: list[Guidance], alone: bool) -> list[Guidance]:
    """The rules in their order; first ClassifierFree, unless its scale is 1 and nobody asks for `further` at others."""
    off = guidance_scale == 1 and (alone or not further)
    try:
        rules = [*([] if off else [ClassifierFree(guidance_scale)]), *further]
        check_rules(rules)
    except ValueError as error:
        raise UserError(str(error)) from None
    return rules


def check_avoided(said: Said, rules: Mapping[float, Sequence[Guidance]]) -> None:
    """Raise a UserError if something is to be avoided and no rule leads away from it."""
    if said.avoided and not any(rule.needs_other for each in rules.values() for rule in each):
        raise UserError(
            "What to be guided away from is named, and nothing is guided: raise --guidance-scale over 1, or leave the "
            "negative out."
        )


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
    tile: int | None,
) -> Edit:
    """What sampling starts from besides noise."""
    if interpolate:
        for option, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise UserError(f"{option} has no meaning with --interpolate: leave one of them out.")
        return between(task, request, images, sampler, tile)
    if not images:
        for option, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise UserError(f"{option} is about given pictures: name them with --images, or leave it out.")
        return Edit()
    usual = 0.7 if mask is None else 1.0
    strength = usual if strength is None else strength
    return from_images(task, images, len(request.seeds), strength, mask, sampler, tile)
