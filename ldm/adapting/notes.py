"""What a new model does otherwise than the one whose weights it takes, where no shape tells it."""

from collections.abc import Iterator

from ldm.adapting.source import Source
from ldm.diffusion import Diffusion
from ldm.networks import DiT, MMDiT
from ldm.networks.positions import SinCos
from ldm.tasks import DiffusionTask


def notes(source: Source, task: DiffusionTask) -> list[str]:
    """A sentence for each difference."""
    return [*source.notes, *of_latents(source, task), *of_the_process(source, task), *of_the_network(source, task)]


def of_latents(source: Source, task: DiffusionTask) -> Iterator[str]:
    if source.autoencoder is not None and source.autoencoder != task.autoencoder.fingerprint():
        yield "the weights were trained on the latents of another autoencoder."


def of_the_process(source: Source, task: DiffusionTask) -> Iterator[str]:
    old, new = source.diffusion, task.diffusion
    if old is None:
        return
    if type(old.path) is not type(new.path):
        yield f"the weights know the path {type(old.path).__name__}, and this is {type(new.path).__name__}."
    if isinstance(old, Diffusion) and isinstance(new, Diffusion):
        before, after = type(old.prediction).__name__, type(new.prediction).__name__
        if before != after:
            yield f"the weights predict {before}, and this model {after}: it has to learn that anew."


def of_the_network(source: Source, task: DiffusionTask) -> Iterator[str]:
    old, new = source.net, task.net
    if isinstance(old, DiT) and isinstance(new, DiT):
        for option in ("num_heads", "rope", "rms_norm"):
            before, after = getattr(old, option), getattr(new, option)
            if before != after:
                yield f"{option} was {before} and is {after}: the weights fit, but what they do is another thing."
    if isinstance(old, DiT | MMDiT) and isinstance(new, DiT | MMDiT) and old.grid != new.grid:
        yield from of_places(old, new)


def of_places(old: DiT | MMDiT, new: DiT | MMDiT) -> Iterator[str]:
    """Fixed positions count on beyond what was trained, unless they are told not to."""
    if isinstance(old.positions, SinCos) and isinstance(new.positions, SinCos):
        trained = old.positions.base_size or max(old.grid)
        counted = new.positions.base_size or max(new.grid)
        if trained != counted:
            yield (
                f"tokens were counted to {trained} along a side and are to {counted}: with positions SinCos(base_size: "
                f"{trained}) the trained places would be stretched over the image."
            )
