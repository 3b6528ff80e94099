"""From a trained model, seeds and labels to images."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion import Denoise
from ldm.diffusion.guidance import ClassifierFree
from ldm.diffusion.samplers import Sampler, Step
from ldm.errors import UserError
from ldm.tasks import DiffusionTask


class ImageNoise:
    """Standard normal noise with one generator an image, so that an image does not depend on its batch.

    The generators live on the CPU: a seed means the same noise on every device.

    Args:
        seeds: the seed of each image.
        shape: (C, H, W) of one sample.
        device: where the noise is wanted.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __call__(self) -> Tensor:
        """The next (B, C, H, W)."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)


@dataclass(frozen=True)
class Request:
    """The images of one batch: a seed each and, for a conditional model, a label each (None: no class).

    Attributes:
        seeds: one an image; the same seed, label and settings give the same image in any batch.
        labels: one an image, or None for images of the data set as a whole.
        guidance_scale: strength of classifier-free guidance, 1 = off.
    """

    seeds: Sequence[int]
    labels: Sequence[int] | None = None
    guidance_scale: float = 1.0

    def pick(self, indices: Iterable[int]) -> "Request":
        """The images at these places."""
        places = list(indices)
        labels = None if self.labels is None else [self.labels[i] for i in places]
        return Request([self.seeds[i] for i in places], labels, self.guidance_scale)

    def split(self, batch_size: int) -> Iterator["Request"]:
        """Requests of at most `batch_size` images each."""
        count = len(self.seeds)
        for start in range(0, count, batch_size):
            yield self.pick(range(start, min(start + batch_size, count)))


def check_request(task: DiffusionTask, request: Request) -> None:
    """Raise a UserError if the model cannot be asked for this."""
    num_classes = task.conditioner.num_classes
    for label in request.labels or ():
        if num_classes is None:
            raise UserError("The model is unconditional and knows no classes: leave --classes out.")
        if not 0 <= label < num_classes:
            raise UserError(f"There is no class {label}: the model knows the classes 0 to {num_classes - 1}.")
    if not math.isfinite(request.guidance_scale):
        raise UserError(f"A guidance scale of {request.guidance_scale} is no finite number: 1 is off, 2 is usual.")
    if request.labels is None and request.guidance_scale != 1:
        raise UserError("Guidance needs a class to guide towards: name --classes, or leave --guidance-scale at 1.")


def denoiser(task: DiffusionTask, request: Request) -> Denoise:
    """The task's network under the request's conditions, guided if it asks for that."""
    dropped = torch.ones(len(request.seeds), dtype=torch.bool, device=task.device)
    uncond = task.diffusion.denoiser(task.net, task.conditioner({}, drop=dropped))
    if request.labels is None:
        return uncond
    labels = torch.tensor(list(request.labels), device=task.device)
    cond = task.diffusion.denoiser(task.net, task.conditioner({"labels": labels}, drop=~dropped))
    return ClassifierFree(cond, uncond, request.guidance_scale)


@torch.inference_mode()
def sample_steps(task: DiffusionTask, request: Request, sampler: Sampler) -> Iterator[Step]:
    """The sampler's steps for one batch, in latent space (B, C, H, W)."""
    noise = ImageNoise(request.seeds, task.net.sample_shape, task.device)
    path = task.diffusion.path
    yield from sampler.steps(denoiser(task, request), path, noise() * path.prior_std, noise)


@torch.inference_mode()
def sample_images(task: DiffusionTask, request: Request, sampler: Sampler) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] for one batch, on the task's device."""
    for step in sample_steps(task, request, sampler):
        latents = step.x
    return task.autoencoder.decode(latents).float().clamp(-1, 1)
