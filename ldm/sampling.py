"""From a trained model, seeds and labels to images."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ldm.diffusion import Denoised
from ldm.diffusion.editing import Inpaint, begin_at, noised_start
from ldm.diffusion.guidance import Contrast, Guidance, guide
from ldm.diffusion.paths import NoisePath, Path
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


@dataclass(frozen=True)
class Edit:
    """What sampling starts from besides the seeds' noise. Tensors have one row an image and lie on the CPU.

    Attributes:
        start: (N, C, H, W) states at the path's noisy end, in place of the seeds' noise.
        known: (N, C, H, W) latents of given images.
        strength: how far these are noised before they are denoised again; 1 forgets them.
        mask: (N, 1, H, W) in latent space, 1 where the model is to paint and 0 where `known` stays.
    """

    start: Tensor | None = None
    known: Tensor | None = None
    strength: float = 1.0
    mask: Tensor | None = None

    def pick(self, places: Sequence[int]) -> "Edit":
        """The rows of these images."""
        rows = (None if x is None else x[list(places)] for x in (self.start, self.known, self.mask))
        start, known, mask = rows
        return Edit(start, known, self.strength, mask)


@dataclass(frozen=True)
class Request:
    """The images of one batch: a seed each and, for a conditional model, a label each (None: no class).

    Attributes:
        seeds: one an image; the same seed, label and settings give the same image in any batch.
        labels: one an image, or None for images of the data set as a whole.
        guidance: rules in the order in which they are applied; none: the model as it is.
        avoided: a label to be guided away from, for each image; None: away from "no class".
        two_passes: ask with and without the condition in two passes, which halves the memory of guidance.
        weak: a worse model of the same latents and path, for autoguidance.
        edit: images or noises to start from.
        temperature: standard deviation of all noise, the first included.
    """

    seeds: Sequence[int]
    labels: Sequence[int] | None = None
    guidance: Sequence[Guidance] = ()
    avoided: Sequence[int] | None = None
    two_passes: bool = False
    weak: DiffusionTask | None = None
    edit: Edit = Edit()
    temperature: float = 1.0

    def pick(self, indices: Iterable[int]) -> "Request":
        """The images at these places."""
        places = list(indices)
        labels, avoided = (None if x is None else [x[i] for i in places] for x in (self.labels, self.avoided))
        edit = self.edit.pick(places)
        return replace(self, seeds=[self.seeds[i] for i in places], labels=labels, avoided=avoided, edit=edit)

    def split(self, batch_size: int) -> Iterator["Request"]:
        """Requests of at most `batch_size` images each."""
        count = len(self.seeds)
        for start in range(0, count, batch_size):
            yield self.pick(range(start, min(start + batch_size, count)))


def check_request(task: DiffusionTask, request: Request) -> None:
    """Raise a UserError if the model cannot be asked for this."""
    rules = request.guidance
    wants_labels = any(rule.needs_labels for rule in rules)
    if not (wants_labels and task.conditioner.num_classes is None):
        check_labels(task, (*(request.labels or ()), *(request.avoided or ())))
    if not 0 < request.temperature < math.inf:
        raise UserError(f"A temperature of {request.temperature} makes no noise: 1 is the model's own, 0.8 to 1 usual.")
    check_path(task.diffusion.path, rules)
    if any(rule.needs_other for rule in rules):
        check_other(task, request)
    needs_weak = any(rule.needs_weak for rule in rules)
    if needs_weak and request.weak is None:
        raise UserError("Autoguidance holds the model against a worse one: name its run folder with --weak-run.")
    if request.weak is not None:
        if not needs_weak:
            raise UserError("--weak-run is for the rule autoguidance: add --guidance autoguidance.")
        check_weak(task, request.weak, request.labels or ())
    try:
        denoise = guide(contrast(task, request.pick([0])), *rules)
        if wants_labels:  # a stranger's classifier, which has to be tried
            path = task.diffusion.path
            denoise(torch.zeros(1, *task.net.sample_shape), torch.tensor((path.t_min + path.t_max) / 2).double())
    except ValueError as error:
        raise UserError(str(error)) from None


def check_labels(task: DiffusionTask, labels: Iterable[int]) -> None:
    """Raise a UserError if one of them is no class of the model."""
    num_classes = task.conditioner.num_classes
    for label in labels:
        if num_classes is None:
            raise UserError("The model is unconditional and knows no classes: leave --classes out.")
        if not 0 <= label < num_classes:
            raise UserError(f"There is no class {label}: the model knows the classes 0 to {num_classes - 1}.")


def check_path(path: Path, rules: Sequence[Guidance]) -> None:
    """Raise a UserError if a rule has no meaning on the path."""
    for rule in rules:
        if rule.needs_noise and not isinstance(path, NoisePath):
            raise UserError(
                f"The guidance {type(rule).__name__} is made for Gaussian noise, and the model's {type(path).__name__} "
                "adds none: leave it out; --guidance-scale works with every model."
            )


def check_other(task: DiffusionTask, request: Request) -> None:
    """Raise a UserError if there is nothing that guidance could hold the wanted condition against."""
    if task.conditioner.num_classes is None:
        raise UserError("The model knows no classes, so nothing can be guided towards: leave --guidance-scale at 1.")
    if request.labels is None:
        raise UserError("Guidance needs a class to guide towards: name --classes, or leave --guidance-scale at 1.")
    if request.avoided is None and task.conditioner.dropout == 0:
        raise UserError(
            "Guidance holds the model against itself without a class, and this one was trained with dropout 0, so it "
            "never learned that: name classes to keep away from with --negative-classes, leave --guidance-scale at 1, "
            "or train with a dropout of 0.1."
        )


def check_weak(task: DiffusionTask, weak: DiffusionTask, labels: Sequence[int]) -> None:
    """Raise a UserError if the weak model does not speak of the same latents, classes and noise levels."""
    if weak.net.sample_shape != task.net.sample_shape:
        raise UserError(
            f"The weak model makes samples of {weak.net.sample_shape} and the model of {task.net.sample_shape}: give "
            "one of the same size."
        )
    try:
        check_labels(weak, labels)
    except UserError as error:
        raise UserError(f"Of the weak model: {error}") from None
    if weak.autoencoder.fingerprint() != task.autoencoder.fingerprint():
        raise UserError("The weak model was trained on the latents of another autoencoder: give one of the same.")
    path, other = task.diffusion.path, weak.diffusion.path
    t = torch.linspace(path.t_min, path.t_max, 5, dtype=torch.float64)
    alike = isinstance(path, NoisePath) and isinstance(other, NoisePath)
    if not alike or not all(torch.allclose(f(t), g(t)) for f, g in zip(curves(path), curves(other), strict=True)):
        raise UserError(
            f"The weak model's path, {type(other).__name__}, adds noise otherwise than {type(path).__name__}, the "
            "model's: give a weak model that was trained on the same path."
        )


def curves(path: Path) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    assert isinstance(path, NoisePath)
    return path.alpha, path.sigma


def contrast(task: DiffusionTask, request: Request) -> Contrast:
    """The task's network under the request's conditions, and what guidance holds that against."""
    path = cast(NoisePath, task.diffusion.path)  # the sampler has been checked to walk it
    wanted = condition(task, request, request.labels)
    weak = None
    if request.weak is not None:
        weak = request.weak.diffusion.denoiser(request.weak.net, condition(request.weak, request, request.labels))
    labels = None if request.labels is None else torch.tensor(list(request.labels), device=task.device)
    if labels is None or task.conditioner.num_classes is None:
        return Contrast(path, task.diffusion.denoiser(task.net, wanted), weak=weak, labels=labels)
    other = condition(task, request, request.avoided)
    pair = task.diffusion.denoiser(task.net, wanted.join(other))

    def both(x_t: Tensor, t: Tensor) -> tuple[Denoised, Denoised]:
        answers = pair(torch.cat([x_t, x_t]), t if t.dim() == 0 else torch.cat([t, t]))
        variances = (None, None) if answers.variance is None else answers.variance.chunk(2)
        one, two = (Denoised(x0, v) for x0, v in zip(answers.x0.chunk(2), variances, strict=True))
        return one, two

    alone, without = (task.diffusion.denoiser(task.net, cond) for cond in (wanted, other))
    return Contrast(path, alone, without, None if request.two_passes else both, weak, labels)


def condition(task: DiffusionTask, request: Request, labels: Sequence[int] | None) -> Conditioning:
    """What a task's network hears of these labels; None: of no class."""
    every = torch.ones(len(request.seeds), dtype=torch.bool, device=task.device)
    if labels is None or task.conditioner.num_classes is None:
        return task.conditioner({}, drop=every)
    return task.conditioner({"labels": torch.tensor(list(labels), device=task.device)}, drop=~every)


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
def sample_images(task: DiffusionTask, request: Request, sampler: Sampler) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] for one batch, on the task's device."""
    for step in sample_steps(task, request, sampler):
        latents = step.x
    return task.autoencoder.decode(latents).float().clamp(-1, 1)
