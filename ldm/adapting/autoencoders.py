"""Giving a new autoencoder the weights of a trained one, as far as they fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ldm import runs
from ldm.adapting.report import Entry, Report
from ldm.autoencoders import Autoencoder
from ldm.errors import UserError
from ldm.foreign import AUTOENCODER, read_foreign
from ldm.tasks import AutoencoderTask, DiffusionTask

MOST_NAMED = 3  # tensors in a message
STATISTICS = ("latent_mean", "latent_std", "latent_samples")  # measured anew when training ends


def adapt_autoencoder(autoencoder: Autoencoder, place: str) -> Report:
    """Start an autoencoder from the weights of another one; what does not fit stays as it is.

    Tensors fit by name and shape, so that an encoder may go on under another quantiser, or with another latent width.

    Args:
        autoencoder: the new one, as it was built.
        place: a run folder or an export, whose first moving average is taken, or a weight file of another code base.

    Raises:
        UserError: there is nothing, or nothing of it fits; the first tensors that differ are named.
    """
    given = {k: v for k, v in weights_of(place, autoencoder).items() if k not in STATISTICS}
    own = {k: v for k, v in autoencoder.state_dict().items() if k not in STATISTICS}
    report = Report(place)
    with torch.no_grad():
        for name, tensor in own.items():
            fits = name in given and given[name].shape == tensor.shape
            if fits:
                tensor.copy_(given[name])
            (report.kept if fits else report.initialised).append(Entry(name, tuple(tensor.shape)))
    kept = {entry.name for entry in report.kept}
    report.unused = [Entry(name, tuple(tensor.shape)) for name, tensor in given.items() if name not in kept]
    if not any(len(entry.shape) >= 2 for entry in report.kept):
        first = report.initialised[:MOST_NAMED]
        differ = [f"{e.name} is {list(e.shape)} here and {shape_of(given, e.name)} there" for e in first]
        raise UserError(
            f"init_from: nothing of {place} fits this autoencoder: {'; '.join(differ)}. Give it the kind and the width "
            "of the trained one, or take init_from out."
        )
    return report


def shape_of(weights: Mapping[str, Tensor], name: str) -> object:
    return list(weights[name].shape) if name in weights else "absent"


def weights_of(place: str, autoencoder: Autoencoder) -> Mapping[str, Tensor]:
    """Of a run folder, finished or not, of an export, or of a weight file, which has to be of this very structure."""
    path = Path(place)
    if not path.exists():
        raise UserError(
            f"init_from is {place}, and there is nothing: give the run folder or export of an autoencoder, or a weight "
            "file; or take init_from out to train from the start."
        )
    if path.is_file():
        try:
            read_foreign(path, AUTOENCODER).load_into(autoencoder)
        except UserError as error:
            raise UserError(f"init_from: {error}") from None
        return autoencoder.state_dict()
    task = runs.load(path)
    if not isinstance(task, AutoencoderTask | DiffusionTask):
        raise UserError(f"init_from: {place} holds no autoencoder: give the run folder of one.")
    return task.autoencoder.state_dict()
