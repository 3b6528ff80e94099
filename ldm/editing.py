"""Editing with a trained model: pictures from disk to what sampling starts from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ldm.autoencoders.tiling import encoding
from ldm.data.transform import ImageTransform
from ldm.diffusion.editing import begin_at, slerp
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers import DDIMInversion, Sampler
from ldm.errors import UserError
from ldm.pictures import BadImage, open_image, to_tensor
from ldm.sampling import Edit, ImageNoise, Request, contrast
from ldm.sampling.request import pick
from ldm.tasks import DiffusionTask


def from_images(
    task: DiffusionTask,
    files: Sequence[str],
    count: int,
    strength: float,
    mask: str | None,
    sampler: Sampler,
    tile: int | None = None,
) -> Edit:
    """Start from given pictures, dealt to `count` images in turn; with a mask, paint only where it is white.

    Args:
        task: the model.
        files: pictures; their centre is cropped to the model's size.
        count: images to be made.
        strength: how far they are noised, over 0; 1 forgets them (SDEdit, arXiv 2108.01073).
        mask: a picture, white where the model is to paint.
        sampler: what will walk from there.
        tile: pixels a side of the tiles in which the pictures are encoded; left out, as a whole.
    """
    if not 0 < strength <= 1:
        raise UserError(f"A strength of {strength} is outside (0, 1]: 0.3 keeps most of an image, 1 forgets it.")
    path = task.diffusion.path
    try:
        begin_at(sampler, strength**path.rho).check(path)
    except ValueError:
        raise UserError(
            f"A strength of {strength} lies below all of the {sampler.num_steps} times that {type(sampler).__name__} "
            "visits, so nothing would change: raise --strength or --num-steps."
        ) from None
    latents = encode(task, files, tile)
    known = latents[[i % len(files) for i in range(count)]]
    painted = None if mask is None else read_mask(task, mask).expand(count, -1, -1, -1)
    return Edit(known=known, strength=strength, mask=painted)


@torch.inference_mode()
def between(
    task: DiffusionTask, request: Request, files: Sequence[str], sampler: Sampler, tile: int | None = None
) -> Edit:
    """Start from noises on the great circle between two ends, one an image of the request.

    The ends are the noises of the request's first seed and of the one after it or, with two pictures, what DDIM run
    backwards over the sampler's times makes of them under the first wish (Song et al. 2020, arXiv 2010.02502, section
    5.3).
    """
    first = request.seeds[0]
    if not files:
        noise = ImageNoise([first, first + 1], task.net.sample_shape, task.device, request.temperature)
        ends = task.diffusion.path.start(noise())
    elif not isinstance(task.diffusion.path, NoisePath):
        raise UserError("Images are inverted through Gaussian noise, of which this model knows nothing: name none.")
    elif len(files) == 2:
        wish = pick(request.wish, [0, 0])
        plain = replace(request, seeds=[first, first], wish=wish, avoided={}, guidance=(), weak=None, edit=Edit())
        held = contrast(task, plain)
        if sampler.num_steps < 2:
            raise UserError("Two images are inverted over the sampler's times: --num-steps must be at least 2.")
        inversion = DDIMInversion(sampler.num_steps, sampler.spacing)
        eps = inversion.invert(held.wanted, held.path, encode(task, files, tile).to(task.device))
        ends = held.path.start(eps)
    else:
        raise UserError(f"--interpolate goes between two images and --images names {len(files)}: name two, or none.")
    weights = torch.linspace(0, 1, len(request.seeds), device=ends.device)
    return Edit(start=torch.cat([slerp(ends[:1], ends[1:], w) for w in weights]).cpu())


def encode(task: DiffusionTask, files: Sequence[str], tile: int | None) -> Tensor:
    """Latents (N, C, H, W) of pictures on disk, the most likely ones, on the CPU."""
    images = torch.stack([read_image(task, file) for file in files])
    with torch.inference_mode():
        return encoding(task.autoencoder, tile)(images.to(task.device)).mode.float().cpu()


def read_image(task: DiffusionTask, file: str, channels: int | None = None) -> Tensor:
    """A picture as (C, H, W) in [-1, 1] at the model's size, its centre cropped."""
    try:
        image = to_tensor(open_image(Path(file).read_bytes()), channels or task.autoencoder.in_channels)
    except BadImage as error:
        raise UserError(f"{file} cannot be used as an image: {error}.") from None
    sides = {side * task.autoencoder.downsample for side in task.net.sample_shape[1:]}
    if len(sides) > 1:
        raise UserError("Pictures can be given to models of square images only, and this one's are not square.")
    return ImageTransform(sides.pop(), "center", flip=False)(image)


def read_mask(task: DiffusionTask, file: str) -> Tensor:
    """(1, 1, h, w) in latent space: 1 where any pixel of that latent is over half white."""
    white = (read_image(task, file, channels=1) > 0).float()[None]
    mask = max_pool2d(white, task.autoencoder.downsample)
    if not mask.any():
        raise UserError(f"{file} has no white: the mask is white where the model is to paint.")
    return mask
