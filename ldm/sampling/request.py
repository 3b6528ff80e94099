"""What is asked of a model: seeds, conditions, guidance, and what to start from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ldm.diffusion.guidance import Guidance
from ldm.tasks import DiffusionTask

Wish = Mapping[str, Sequence[Any] | Tensor]  # entries of a batch by name, one value an image


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
    """The images of one batch: a seed each and, for a conditional model, what each is to show.

    A wish names entries of a batch as the conditioner's embedders read them, such as {"labels": [3, 7]} or
    {"captions": ["a red circle", None]}, with one value an image; None stands for no condition.

    Attributes:
        seeds: one an image; the same seed, wish and settings give the same image in any batch.
        wish: what is asked for; empty: images of the data set as a whole.
        guidance: rules in the order in which they are applied; none: the model as it is.
        avoided: what to be guided away from; of what it does not name, away from no condition.
        two_passes: ask with and without the condition in two passes, which halves the memory of guidance.
        weak: a worse model of the same latents and path, for autoguidance.
        edit: images or noises to start from.
        temperature: standard deviation of all noise, the first included.
    """

    seeds: Sequence[int]
    wish: Wish = field(default_factory=dict)
    guidance: Sequence[Guidance] = ()
    avoided: Wish = field(default_factory=dict)
    two_passes: bool = False
    weak: DiffusionTask | None = None
    edit: Edit = Edit()
    temperature: float = 1.0

    def pick(self, indices: Iterable[int]) -> "Request":
        """The images at these places."""
        places = list(indices)
        wish, avoided = pick(self.wish, places), pick(self.avoided, places)
        edit = self.edit.pick(places)
        return replace(self, seeds=[self.seeds[i] for i in places], wish=wish, avoided=avoided, edit=edit)

    def split(self, batch_size: int) -> Iterator["Request"]:
        """Requests of at most `batch_size` images each."""
        count = len(self.seeds)
        for start in range(0, count, batch_size):
            yield self.pick(range(start, min(start + batch_size, count)))


def pick(wish: Wish, places: Sequence[int]) -> Wish:
    """The values of these images."""
    rows = list(places)
    return {key: v[rows] if isinstance(v, Tensor) else [v[i] for i in rows] for key, v in wish.items()}
