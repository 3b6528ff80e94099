"""From a trained model and a request to images."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.editing import Inpaint, begin_at, noised_start
from ldm.diffusion.guidance import Contrast, guide
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers import Sampler, Step
from ldm.sampling.request import Request
from ldm.sampling.wishes import other_condition, wanted_condition
from ldm.tasks import DiffusionTask


class ImageNoise:
    """Standard normal noise with one generator an image, so that an image does not depend on its batch.

    The generators live on the CPU: a seed means the same noise on every device.

    Args:
        seeds: the seed of each image.
        shape: (C, H, W) of one sample.
        device: where the noise is wanted.
        temperature: standard deviation of the noise; under 1 the samples are more alike.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device, temperature: float = 1.0
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device
        self.temperature = temperature

    def __call__(self) -> Tensor:
        """The next (B, C, H, W)."""
        drawn = torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])
        return (drawn if self.temperature == 1 else drawn * self.temperature).to(self.device)


def contrast(task: DiffusionTask, request: Request) -> Contrast:
    """The task's network under the request's conditions, and what guidance holds that against."""
    path = cast(NoisePath, task.diffusion.path)  # the sampler has been checked to walk it
    wanted = wanted_condition(task, request)
    alone = task.diffusion.denoiser(task.net, wanted)
    weak, labels = None, request.wish.get("labels")
    if request.weak is not None:
        weak = request.weak.diffusion.denoiser(request.weak.net, wanted_condition(request.weak, request))
    classes = None if labels is None else torch.as_tensor(labels, device=task.device)
    if not set(request.wish) & set(task.conditioner.keys):
        return Contrast(path, alone, weak=weak, labels=classes)
    other = other_condition(task, request)
    pair = task.diffusion.denoiser(task.net, wanted.join(other))

    def both(x_t: Tensor, t: Tensor) -> tuple[Denoised, Denoised]:
        answers = pair(torch.cat([x_t, x_t]), t if t.dim() == 0 else torch.cat([t, t]))
        variances = (None, None) if answers.variance is None else answers.variance.chunk(2)
        one, two = (Denoised(x0, v) for x0, v in zip(answers.x0.chunk(2), variances, strict=True))
        return one, two

    without = task.diffusion.denoiser(task.net, other)
    return Contrast(path, alone, without, None if request.two_passes else both, weak, classes)


@torch.inference_mode()
def sample_steps(task: DiffusionTask, request: Request, sampler: Sampler) -> Iterator[Step]:
    """The sampler's steps for one batch, in latent space (B, C, H, W)."""
    noise = ImageNoise(request.seeds, task.net.sample_shape, task.device, request.temperature)
    path = cast(NoisePath, task.diffusion.path)
    denoise = guide(contrast(task, request), *request.guidance)
    edit, eps = request.edit, noise()
    x = path.start(eps) if edit.start is None else edit.start.to(task.device)
    if edit.known is not None:
        known = edit.known.to(task.device)
        if edit.mask is not None:
            denoise = Inpaint(denoise, path, known, edit.mask.to(task.device), noise)
        sampler = begin_at(sampler, edit.strength**path.rho)  # a share of the way as samplers space it
        x = noised_start(sampler, path, known, eps) if edit.strength < 1 else x
    yield from sampler.steps(denoise, path, x, noise)


@torch.inference_mode()
def sample_images(
    task: DiffusionTask,
    request: Request,
    sampler: Sampler,
    see: Callable[[Step], None] = lambda step: None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] for one batch, on the task's device.

    Args:
        task: the model.
        request: what is asked of it.
        sampler: that walks.
        see: is shown each step of the sampler.
        decode: from normalised latents to images; left out, as the task's autoencoder does.
    """
    for step in sample_steps(task, request, sampler):
        see(step)
        latents = step.x
    return (decode or task.autoencoder.decode)(latents).float().clamp(-1, 1)
