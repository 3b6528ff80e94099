"""What a model cannot be asked for, said before any work is done."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ldm.autoencoders import Autoencoder
from ldm.conditioners import Conditioner, Embedder
from ldm.diffusion.guidance import Guidance, guide
from ldm.diffusion.paths import NoisePath, Path
from ldm.errors import UserError
from ldm.sampling.draw import contrast
from ldm.sampling.request import Request, Wish
from ldm.sampling.wishes import guided_entries
from ldm.tasks import DiffusionTask

OPTIONS = {"labels": "classes (--classes)", "captions": "prompts (--prompt)"}


def check_request(task: DiffusionTask, request: Request) -> None:
    """Raise a UserError if the model cannot be asked for this."""
    rules = request.guidance
    wants_labels = any(rule.needs_labels for rule in rules)
    for wish in (request.wish, request.avoided):
        check_wish(
            task, {k: v for k, v in wish.items() if k != "labels" or not wants_labels or k in task.conditioner.keys}
        )
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
        check_weak(task, request.weak, request.wish)
    try:
        denoise = guide(contrast(task, request.pick([0])), *rules)
        if wants_labels:  # a stranger's classifier, which has to be tried
            path = task.diffusion.path
            denoise(torch.zeros(1, *task.net.sample_shape), torch.tensor((path.t_min + path.t_max) / 2).double())
    except ValueError as error:
        raise UserError(str(error)) from None


def check_wish(task: DiffusionTask, wish: Wish) -> None:
    """Raise a UserError if the model cannot be asked for one of these things, or does not know one of these values."""
    for key in wish:
        reader(task.conditioner, key)
    for embedder in task.conditioner:
        keys = {*embedder.keys, *embedder.defaults} & wish.keys()
        if keys and not keys & set(embedder.keys):
            raise UserError(
                f"{option(sorted(keys)[0])} goes with {' and '.join(map(option, embedder.keys))}: name both."
            )
        named = {key: [value for value in wish[key] if value is not None] for key in keys}
        if named:
            embedder.check_asked(named)


def reader(conditioner: Conditioner, key: str) -> Embedder:
    """The embedder that reads an entry; a UserError that says what the model takes if there is none."""
    found = conditioner.reader(key)
    if found is None:
        takes = " and ".join(option(known) for known in conditioner.keys) or "nothing: it is unconditional"
        raise UserError(f"The model cannot be asked for {option(key)}; it takes {takes}.")
    return found


def option(key: str) -> str:
    """What a user calls an entry of the batch, and the option that names it."""
    return OPTIONS.get(key, f"{key} (--condition {key}=...)")


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
    conditioner = task.conditioner
    if not len(conditioner):
        raise UserError("The model knows no conditions, so nothing can be guided towards: leave --guidance-scale at 1.")
    if not request.wish:
        takes = " or ".join(option(key) for key in conditioner.keys)
        raise UserError(f"Guidance needs something to guide towards: name {takes}, or leave --guidance-scale at 1.")
    if not request.avoided and not guided_entries(task) & set(request.wish):
        never = not any(conditioner.droppable())
        why = "was trained with dropout 0, so it never learned that" if never else "cannot do without what is asked for"
        raise UserError(
            f"Guidance holds the model against itself without a condition, and this one {why}: name what to keep away "
            "from with --negative-classes or --negative-prompt, leave --guidance-scale at 1, or train with a "
            "dropout of 0.1."
        )


def check_weak(task: DiffusionTask, weak: DiffusionTask, wish: Wish) -> None:
    """Raise a UserError if the weak model does not speak of the same latents, conditions and noise levels."""
    if weak.net.sample_shape != task.net.sample_shape:
        raise UserError(
            f"The weak model makes samples of {weak.net.sample_shape} and the model of {task.net.sample_shape}: give "
            "one of the same size."
        )
    try:
        check_wish(weak, wish)
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


def check_decoder(task: DiffusionTask, decoder: Autoencoder) -> None:
    """Raise a UserError if a decoder does not speak of the model's latents."""
    wanted, given = task.autoencoder.fingerprint(), decoder.fingerprint()
    if wanted != given:
        raise UserError(
            f"The model makes latents of autoencoder {wanted[:12]}, and the decoder draws those of {given[:12]}: give "
            "one that learned from the model's autoencoder, or leave it out."
        )


def curves(path: Path) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    assert isinstance(path, NoisePath)
    return path.alpha, path.sigma
