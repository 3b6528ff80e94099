"""Diffusion networks of other code bases, made an export of ours."""

import inspect
from pathlib import Path
from typing import Any

from ldm import runs
from ldm.conditioners import Label
from ldm.diffusion import paths, predictions
from ldm.errors import UserError
from ldm.exporting import embed_autoencoder
from ldm.exports import write_export
from ldm.foreign import NETWORKS, ForeignModel, read_foreign
from ldm.frozen_files import gather_files
from ldm.importing.blocks import block, plain
from ldm.networks.unet_parts import Transformers
from ldm.tasks import DiffusionTask
from ldm.trust import AUTOENCODER_LOADER

PATHS = {"dit": "Linear", "unet": "ScaledLinear"}  # what the published models were trained on
PREDICTION = "eps"  # as nearly all of them
TEXT_MODELS: dict[int, dict[str, Any]] = {  # by the width of their tokens: Stable Diffusion 1 and 2
    768: {"model": "ViT-L-14-quickgelu", "layer": "last", "padding": "end"},
    1024: {"model": "ViT-H-14", "layer": "penultimate"},
}


def import_network(
    kind: str,
    file: Path,
    out: Path,
    autoencoder: str | None,
    text_weights: str | None,
    text_model: str | None,
    input_size: int | None,
    num_heads: int | None,
    path: str | None,
    prediction: str | None,
    classes: str | None,
    trust_code: bool,
) -> None:
    """Make the export `out` of a diffusion network's weights; the options are those of `import_weights`."""
    if autoencoder is None:
        raise UserError("import needs --autoencoder: the run or export of the autoencoder whose latents FILE knows.")
    foreign = read_foreign(file, kind)
    arguments = network_arguments(foreign, input_size, num_heads)
    conditioner = text_block(arguments, text_weights, text_model) if kind == "unet" else label_block(foreign)
    learned_variance = arguments.get("learned_variance", False)
    model = block(
        "ldm.tasks.DiffusionTask",
        net=block(f"ldm.networks.{NETWORKS[kind].__name__}", **arguments),
        diffusion=process_block(path or PATHS[kind], prediction or PREDICTION, learned_variance),
        conditioner=conditioner,
        autoencoder=block(AUTOENCODER_LOADER, run=autoencoder, trust_code=trust_code),
    )
    task: DiffusionTask = runs.instantiate(DiffusionTask, "model", model, file, trust_code)
    fill(task, foreign)
    size = check_latents(task, foreign)
    names = None if classes is None else class_names(Path(classes), foreign)
    embed_autoencoder(model, trust_code)
    files = gather_files(model, trust_code)
    write_export(out, model, task, size, names, files)


def network_arguments(foreign: ForeignModel, input_size: int | None, num_heads: int | None) -> dict[str, Any]:
    """The network's, as plain data: what the weights say and, above that, what the user says."""
    arguments = foreign.arguments()
    if input_size is not None:
        arguments["input_size"] = input_size
    if foreign.kind == "unet":
        arguments.setdefault("input_size", 64)
        told = arguments["attention"]
        if num_heads is not None:
            arguments["attention"] = Transformers(num_heads, None, told.depth, told.linear_projections)
    elif num_heads is not None:
        arguments["num_heads"] = num_heads
    return {name: plain(value) for name, value in arguments.items()}


def process_block(path: str, prediction: str, learned_variance: bool) -> dict[str, Any]:
    """The diffusion process; with learned variance, its loss trains that too."""
    parts = {
        "path": block(f"ldm.diffusion.paths.{name_in(paths, path, 'path')}"),
        "prediction": block(f"ldm.diffusion.predictions.{name_in(predictions, prediction, 'prediction')}"),
    }
    if learned_variance:
        parts["objective"] = block("ldm.diffusion.objectives.Hybrid")
    return block("ldm.diffusion.Diffusion", **parts)


def name_in(package: Any, name: str, what: str) -> str:
    """The class of a package that is called so in small or capital letters."""
    known = {each.lower(): each for each in package.__all__ if inspect.isclass(getattr(package, each))}
    if name.lower() not in known:
        raise UserError(f"There is no {what} {name}: choose one of {', '.join(known)}.")
    return known[name.lower()]


def label_block(foreign: ForeignModel) -> dict[str, Any] | None:
    """The embedder of the classes that come with the weights."""
    table = foreign.label_table()
    if table is None:
        return None
    label = block("ldm.conditioners.Label", num_classes=len(table) - 1, width=table.shape[1])
    return block("ldm.conditioners.Conditioner", embedders=[label])


def text_block(arguments: dict[str, Any], weights: str | None, model: str | None) -> dict[str, Any]:
    """The embedder of captions that a network with these arguments was trained with."""
    if weights is None:
        raise UserError(
            "A unet attends to a text, and its encoder is not in it: pass --text-weights FILE, the weights of that "
            "encoder or of the whole model."
        )
    encoder = dict(TEXT_MODELS.get(arguments["context_width"], {}))
    if model is not None:
        encoder["model"] = model
    if "model" not in encoder:
        width = arguments["context_width"]
        raise UserError(f"No text encoder {width} wide is known here: pass --text-model, its name in open_clip.")
    described = block(
        "ldm.conditioners.encoders.OpenCLIPText",
        **encoder,
        weights=str(Path(weights).expanduser().resolve()),
        projection=False,
        attend_padding=True,
    )
    embedder = block("ldm.conditioners.FrozenText", encoder=described)
    return block("ldm.conditioners.Conditioner", embedders=[embedder])


def fill(task: DiffusionTask, foreign: ForeignModel) -> None:
    """Give a task the weights."""
    foreign.load_into(task.net)
    table = foreign.label_table()
    for embedder in task.conditioner:
        if isinstance(embedder, Label) and table is not None:
            embedder.embedding.load_state_dict({"weight": table})


def check_latents(task: DiffusionTask, foreign: ForeignModel) -> int:
    """The side of the images behind the network's samples; a UserError where its parts do not fit each other."""
    side = task.net.sample_shape[1]
    size = side * task.autoencoder.downsample
    try:
        task.net.check(task.autoencoder.latent_shape(size, size), task.null_condition(1))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{foreign.file} does not go with that autoencoder or text encoder: {error}") from None
    return size


def class_names(file: Path, foreign: ForeignModel) -> list[str]:
    """The names in a file, which has to have as many as the weights have classes."""
    if not file.is_file():
        raise UserError(f"There is no file {file}: give a text file with one name a line.")
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8: save it as UTF-8 text, one name a line.") from None
    table = foreign.label_table()
    count = 0 if table is None else len(table) - 1
    if len(names) != count:
        raise UserError(f"{file} has {len(names)} names and {foreign.file} {count} classes: give one name a line.")
    return names
