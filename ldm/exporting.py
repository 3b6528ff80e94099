"""A trained model as files that need nothing else, in our layout or in that of other code."""

from pathlib import Path
from typing import Any, Literal

from ldm import runs
from ldm.autoencoders.layouts.folders import FILES, write_folder
from ldm.errors import UserError
from ldm.exports import check_replaceable, replaced, write_export
from ldm.frozen_files import gather_files, locate_files
from ldm.tasks import AutoencoderTask


def export(
    run: str | Path,
    out: str | Path,
    weights: str = "ema",
    force: bool = False,
    trust_code: bool = False,
    layout: Literal["ldm", "diffusers", "compvis"] = "ldm",
) -> Path:
    """Write a run as model.safetensors and config.yaml, the autoencoder and the files of frozen encoders included.

    The folder needs nothing else: it can be moved, published and sampled from, and training can take its autoencoder.
    In the layout of diffusers or compvis it is for other code: see --layout.

    Args:
        run: the run folder, or an export.
        out: the folder to make.
        weights: ema, raw, or the decay of one of the averages, for example 0.9999.
        force: replace OUT if it holds an older export.
        trust_code: allow the run's config to name classes from outside ldm, which runs their code.
        layout: ldm; of an autoencoder also diffusers (AutoencoderKL or VQModel for from_pretrained; pipelines of
            diffusers normalise by scaling_factor and shift_factor only, so latents_mean and latents_std, which stand
            there where channels differ, are yours to apply) or compvis (model.ckpt and config.yaml of a first stage).

    Returns:
        `out`.
    """
    run, out = Path(run), Path(out)
    if layout != "ldm":
        return export_layout(layout, run, out, weights, force, trust_code)
    check_replaceable(out, force)
    task = runs.load(run, weights, trust_code)
    model = runs.read_model_config(run)
    runs.locate_autoencoder(model, run, trust_code)
    embed_autoencoder(model, trust_code)
    locate_files(model, run, trust_code)
    files = gather_files(model, trust_code)
    write_export(out, model, task, runs.trained_size(run), runs.read_classes(run), files)
    return out


def export_layout(layout: str, run: Path, out: Path, weights: str, force: bool, trust_code: bool) -> Path:
    """`export` of an autoencoder for other code."""
    check_replaceable(out, force, FILES[layout])
    task = runs.load(run, weights, trust_code)
    if not isinstance(task, AutoencoderTask):
        raise UserError(
            f"{run} is no autoencoder's, and only these are written in the layout of {layout}: give the run of an "
            "autoencoder, or leave --layout out."
        )
    runs.check_measured(task.autoencoder, run)
    with replaced(out) as folder:
        write_folder(layout, folder, task.autoencoder, runs.trained_size(run))
    return out


def embed_autoencoder(model: dict[str, Any], trust_code: bool = False) -> None:
    """Replace each reference to an autoencoder's run by that autoencoder's own description."""
    while references := runs.autoencoder_references(model):
        run = Path(references[0]["init_args"]["run"])
        inner = runs.read_model_config(run)
        runs.locate_autoencoder(inner, run, trust_code)
        references[0].clear()
        references[0].update(inner["init_args"]["autoencoder"])
