"""From a trained model, seeds and labels to images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ldm.diffusion import Denoise, Denoised
from ldm.diffusion.guidance import Contrast, Guidance, guide
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers import Sampler, Step
from ldm.errors import UserError
from ldm.networks import Conditioning
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
        guidance: rules in the order in which they are applied; none: the model as it is.
        avoided: a label to be guided away from, for each image; None: away from "no class".
        two_passes: ask with and without the condition in two passes, which halves the memory of guidance.
    """

    seeds: Sequence[int]
    labels: Sequence[int] | None = None
    guidance: Sequence[Guidance] = ()
    avoided: Sequence[int] | None = None
    two_passes: bool = False

    def pick(self, indices: Iterable[int]) -> "Request":
        """The images at these places."""
        places = list(indices)
        labels, avoided = (None if x is None else [x[i] for i in places] for x in (self.labels, self.avoided))
        return replace(self, seeds=[self.seeds[i] for i in places], labels=labels, avoided=avoided)

    def split(self, batch_size: int) -> Iterator["Request"]:
        """Requests of at most `batch_size` images each."""
        count = len(self.seeds)
        for start in range(0, count, batch_size):
            yield self.pick(range(start, min(start + batch_size, count)))


def check_request(task: DiffusionTask, request: Request) -> None:
    """Raise a UserError if the model cannot be asked for this."""
    num_classes = task.conditioner.num_classes
    for label in (*(request.labels or ()), *(request.avoided or ())):
        if num_classes is None:
            raise UserError("The model is unconditional and knows no classes: leave --classes out.")
        if not 0 <= label < num_classes:
            raise UserError(f"There is no class {label}: the model knows the classes 0 to {num_classes - 1}.")
    if not any(rule.needs_other for rule in request.guidance):
        return
    if request.labels is None:
        raise UserError("Guidance needs a class to guide towards: name --classes, or leave --guidance-scale at 1.")
    if request.avoided is None and task.conditioner.dropout == 0:
        raise UserError(
            "Guidance holds the model against itself without a class, and this one was trained with dropout 0, so it "
            "never learned that: name classes to keep away from with --negative-classes, leave --guidance-scale at 1, "
            "or train with a dropout of 0.1."
        )


def contrast(task: DiffusionTask, request: Request) -> Contrast:
    """The task's network under the request's conditions, and what guidance holds that against."""
    count = len(request.seeds)
    every = torch.ones(count, dtype=torch.bool, device=task.device)

    def condition(labels: Sequence[int] | None) -> Conditioning:
        if labels is None:
            return task.conditioner({}, drop=every)
        return task.conditioner({"labels": torch.tensor(list(labels), device=task.device)}, drop=~every)

    def model(cond: Conditioning) -> Denoise:
        return task.diffusion.denoiser(task.net, cond)

    path = cast(NoisePath, task.diffusion.path)  # the sampler has been checked to walk it
    wanted = condition(request.labels)
    if request.labels is None:
        return Contrast(path, model(wanted))
    other = condition(request.avoided)
    pair = model(wanted.join(other))

    def both(x_t: Tensor, t: Tensor) -> tuple[Denoised, Denoised]:
        answers = pair(torch.cat([x_t, x_t]), t if t.dim() == 0 else torch.cat([t, t]))
        variances = (None, None) if answers.variance is None else answers.variance.chunk(2)
        one, two = (Denoised(x0, v) for x0, v in zip(answers.x0.chunk(2), variances, strict=True))
        return one, two

    labels = torch.tensor(list(request.labels), device=task.device)
    return Contrast(path, model(wanted), model(other), None if request.two_passes else both, labels=labels)


@torch.inference_mode()
def sample_steps(task: DiffusionTask, request: Request, sampler: Sampler) -> Iterator[Step]:
    """The sampler's steps for one batch, in latent space (B, C, H, W)."""
    noise = ImageNoise(request.seeds, task.net.sample_shape, task.device)
    path = cast(NoisePath, task.diffusion.path)
    denoise = guide(contrast(task, request), *request.guidance)
    yield from sampler.steps(denoise, path, path.start(noise()), noise)


@torch.inference_mode()
def sample_images(task: DiffusionTask, request: Request, sampler: Sampler) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] for one batch, on the task's device."""
    for step in sample_steps(task, request, sampler):
        latents = step.x
    return task.autoencoder.decode(latents).float().clamp(-1, 1)
