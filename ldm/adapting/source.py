"""Where the weights of a new run come from."""

from dataclasses import dataclass
from pathlib import Path

from ldm.conditioners import Conditioner
from ldm.diffusion import Process
from ldm.errors import UserError
from ldm.foreign import read_foreign
from ldm.networks import Network
from ldm.runs import load_diffusion, read_classes


@dataclass(frozen=True)
class Source:
    """A trained model, as much of it as is known.

    Attributes:
        place: the path that it was read from.
        net: with its weights.
        conditioner: with its weights.
        diffusion: how it was trained; None of a weight file.
        autoencoder: fingerprint of the autoencoder of its latents; None of a weight file.
        classes: the names of its classes, where they have some.
        untrained: tensors of `net` that no training has made, by name.
        notes: what the report is to say of it.
    """

    place: str
    net: Network
    conditioner: Conditioner
    diffusion: Process | None = None
    autoencoder: str | None = None
    classes: list[str] | None = None
    untrained: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def read_source(place: str) -> Source:
    """The model in a run folder or an export, by its first moving average if it has one, or in a weight file.

    Raises:
        UserError: there is nothing, or nothing that can be read as a diffusion model.
    """
    path = Path(place)
    if not path.exists():
        raise UserError(
            f"init_from is {place}, and there is nothing: give the run folder or export of a diffusion model, or a "
            "weight file; or take init_from out to train from the start."
        )
    if path.is_file():
        model = read_foreign(path)
        return Source(place, model.network(), model.conditioner())
    task = load_diffusion(path)
    return Source(place, task.net, task.conditioner, task.diffusion, task.autoencoder.fingerprint(), read_classes(path))
