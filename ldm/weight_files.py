"""Weights in files of other code bases; nothing in them can run code."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldm.errors import UserError

WRAPPINGS = ("ema", "model", "state_dict")  # what training runs put their weights under, the wanted ones first
STARTS = (b"PK", b"\x80")  # of a zip, and of a pickle since protocol 2
CODE = re.compile(r"Unsupported (?:global: GLOBAL|class) (\S+)")  # what the unpickler will not run
BESIDE = (  # what the published checkpoints of Lightning keep beside their weights
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)


class Ignored:
    """Stands for an object beside the weights, of which nothing is wanted: it takes all that builds it, and keeps none.

    So the code that the file names for it is neither imported nor run.
    """

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_tensors(file: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of one that torch.save wrote, by name, as far as they are wanted.

    Raises:
        UserError: naming the file, which is missing, damaged, or holds more than tensors.
    """
    if not file.is_file():
        raise UserError(f"There is no file {file}: nothing is downloaded, so fetch the weights and give their path.")
    if file.suffix != ".safetensors" and not is_pickled(file):
        raise UserError(
            f"The weights {file} cannot be read, because it is no file of weights: give a .safetensors file or one "
            "that torch.save wrote."
        )
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
        beside: list[Any] = [(Ignored, name) for name in BESIDE]
        with torch.serialization.safe_globals([argparse.Namespace, *beside]):  # training runs keep their options too
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise UserError(f"The weights {file} cannot be read ({error}): fetch them again.") from None
    except Exception as error:  # whatever the unpickler trips over
        named = CODE.search(str(error))
        reason = f" (it asks for {named[1]})" if named else ""
        raise UserError(
            f"The weights {file} cannot be read without running code of theirs{reason}, or are damaged: if the file is "
            "whole, save its state_dict as .safetensors and give that; else fetch it again."
        ) from None
    return {name: value for name, value in unwrapped(content).items() if isinstance(value, Tensor) and wanted(name)}


def is_pickled(file: Path) -> bool:
    """Whether it begins as what torch.save writes: a zip, or of old a pickle."""
    with file.open("rb") as opened:
        return opened.read(2).startswith(STARTS)


def unwrapped(content: Any) -> Mapping[str, Any]:
    """The weights in what a file holds: itself, or what is under "ema", "model" or "state_dict"."""
    for name in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    return content if isinstance(content, Mapping) else {}
