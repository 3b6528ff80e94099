"""The `plot` command: pictures of a config's path, of an image under its noise, and of a sampler at work."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm import plotting, runs
from ldm.cli import signature
from ldm.cli.by_name import describe, known, listing, make
from ldm.data import ImageTransform, ShardReader
from ldm.data.index import IMAGES
from ldm.diffusion import Diffusion
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers import Sampler
from ldm.errors import UserError
from ldm.pictures import BadImage, open_image, to_tensor
from ldm.trust import own_object

MOST_TIMES = 60  # of one picture
SHOWN = 256  # pixels of a side at most, unless the config says more


def plot(argv: list[str]) -> None:
    """Hand the arguments to the picture that the first one names."""
    if argv and argv[0] in PICTURES:
        signature.call(PICTURES[argv[0]], argv[1:], f"plot {argv[0]}", epilog=CHOICES.get(argv[0]))
    elif argv and argv[0] in ("-h", "--help"):
        print(overview())
    else:
        asked = f"There is no picture {argv[0]!r}" if argv else "plot needs the name of a picture"
        raise UserError(f"{asked}: choose one of {', '.join(PICTURES)} (see ldm plot --help).")


def overview() -> str:
    """What `ldm plot --help` prints."""
    lines = [f"  {name:<10}{(picture.__doc__ or '').splitlines()[0]}" for name, picture in PICTURES.items()]
    return "\n".join(
        [
            "usage: ldm plot PICTURE [options]",
            "",
            "Pictures of the mathematics, as PNG files.",
            "",
            "pictures:",
            *lines,
            "",
            "ldm plot PICTURE --help explains every option.",
        ]
    )


def path(config: str, out: str = "path.png", trust_code: bool = False) -> None:
    """The noise levels of a training config, which times it trains and how much each level counts.

    alpha, sigma and log-SNR over t; the density of the training times; and the effective weight over log-SNR, which
    is what tells two ways of training apart: the weight of the squared error of eps times how often its noise level is
    trained. A bound on the likelihood has the same weight everywhere.

    Args:
        config: a training config (YAML) of a diffusion model, or its run folder, whose weights are not read.
        out: the PNG to write.
        trust_code: allow the config to name classes from outside ldm, which runs their code.
    """
    process = runs.load_process(config, trust_code)
    if not isinstance(process, Diffusion):
        raise UserError(
            f"{config} trains {type(process).__name__}, which has no noise levels: see it with ldm plot noising."
        )
    write(plotting.draw_path(process, f"Noise and training in {config}"), out)


def noising(
    config: str,
    shards: str,
    out: str = "noising.png",
    num_times: int = 9,
    size: int = 0,
    seed: int = 0,
    trust_code: bool = False,
) -> None:
    """The first image of a packed set at several times of a config's path.

    Of a model of latents the picture shows the noise levels, not what it sees: the noise is laid on the pixels, brought
    to unit variance as its latents are.

    Args:
        config: a training config (YAML) of a diffusion model, or its run folder, whose weights are not read.
        shards: folder of packed images, as ldm pack writes it.
        out: the PNG to write.
        num_times: how many times are shown, from the least to the most noise.
        size: side in pixels that the image is brought to; 0: what the config says, or its own up to 256.
        seed: seed of the noise.
        trust_code: allow the config to name classes from outside ldm, which runs their code.
    """
    if not 1 <= num_times <= MOST_TIMES or size < 0 or seed < 0:
        raise UserError(f"--num-times must be 1 to {MOST_TIMES}, --size and --seed at least 0.")
    process = runs.load_process(config, trust_code)
    read = runs.read_training_config(config)
    image = first_image(shards, size or int(read["data"]["init_args"].get("size") or 0))
    eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    title = f"{type(process.path).__name__} of {config}"
    in_pixels = is_pixel_model(read["model"]["init_args"])
    if not in_pixels:
        title += "\non the pixels of an image, at unit variance; the model itself sees latents"
    write(plotting.draw_noising(process.path, image, eps, num_times, not in_pixels, title), out)


def sampler(
    name: str,
    out: str = "sampler.png",
    num_steps: int = 20,
    path: str = "cosine",
    num_lines: int = 24,
    num_samples: int = 1000,
    seed: int = 0,
) -> None:
    """Trajectories of a sampler on a mixture of three Gaussians in the plane, with its exact denoiser.

    Whatever differs from the density of the data is the error of the sampler alone. Example: ldm plot sampler
    ddim:eta=1 --num-steps 10 --path rectifiedflow

    Args:
        name: a sampler by name, with settings as NAME:KEY=VALUE,KEY=VALUE, as in ldm sample --sampler.
        out: the PNG to write.
        num_steps: steps of the sampler.
        path: the noise path by name, with settings like the sampler's.
        num_lines: trajectories drawn on the left.
        num_samples: samples drawn on the right.
        seed: seed of the noise.
    """
    if num_lines < 1 or num_samples < 1 or seed < 0:
        raise UserError("--num-lines and --num-samples must be at least 1, --seed at least 0.")
    chosen = make(Sampler, name, "sampler", num_steps=num_steps)
    way = make(NoisePath, path, "path")
    title = f"{textwrap.fill(describe(chosen), 110)}\non the path {type(way).__name__}"
    try:
        chosen.check(way)
        figure = plotting.draw_sampler(chosen, way, num_lines, num_samples, seed, title)
    except ValueError as error:
        raise UserError(f"The sampler does not fit the path: {error}") from None
    write(figure, out)


def sampler_choices() -> str:
    """What the help of `sampler` ends with."""
    paths = textwrap.fill(", ".join(known(NoisePath)), 100, initial_indent="  ", subsequent_indent="  ")
    return f"{listing(Sampler, 'samplers')}\n\npaths:\n{paths}"


PICTURES: dict[str, Callable[..., None]] = {"path": path, "noising": noising, "sampler": sampler}
CHOICES: dict[str, Callable[[], str]] = {"sampler": sampler_choices}


def first_image(shards: str, size: int) -> Tensor:
    """The first image of a packed set, float (C, size, size) in [-1, 1], grey if it is grey."""
    reader = ShardReader(shards)
    if len(reader) == 0 or reader.manifest.kind != "images":
        raise UserError(f"{shards} holds no images: give a set that ldm pack wrote, such as the one that was encoded.")
    key, members = reader.read(0, 0)
    try:
        image = open_image(next(members[extension] for extension in IMAGES if extension in members))
    except BadImage as error:
        raise UserError(f"The first image of {shards}, {key}, cannot be used: {error}") from None
    pixels = to_tensor(image, 1 if image.mode in ("1", "L") else 3)
    return ImageTransform(size or min(SHOWN, *pixels.shape[1:]))(pixels)


def is_pixel_model(arguments: dict[str, Any]) -> bool:
    """Whether a model block's autoencoder leaves pixels as they are."""
    block = arguments.get("autoencoder")
    named = block.get("class_path") if isinstance(block, dict) else block
    return getattr(own_object(named), "in_pixels", False) is True


def write(figure: Any, out: str) -> None:
    plotting.save(figure, Path(out))
    print(out)
