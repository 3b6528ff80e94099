"""What a run folder says of its run: the resolved config, and the environment that it ran in."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

import ldm
from ldm.atomic import write_bytes
from ldm.runs import CLASSES, CONFIG

ENVIRONMENT = "environment.json"
PACKAGES = ("ldm", "torch", "torchvision", "lightning", "webdataset", "torchmetrics", "timm", "numpy", "safetensors")


class RunRecord(L.Callback):
    """Writes config, environment and class names into the run folder once training really starts.

    By then the checkpoint that is resumed from has fitted the model, so a config for another model cannot replace
    the one that belongs to the checkpoints.

    Args:
        config: the resolved config as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            run.mkdir(parents=True, exist_ok=True)
            write_bytes(run / CONFIG, self.config.encode())
            names = class_names(trainer)
            if names is not None:
                write_bytes(run / CLASSES, (json.dumps(names, indent=1, ensure_ascii=False) + "\n").encode())
            record = json.dumps(environment(trainer), indent=1)
            write_bytes(run / ENVIRONMENT, (record + "\n").encode())


def class_names(trainer: L.Trainer) -> list[str] | None:
    """What the training set calls its classes."""
    manifest = getattr(getattr(trainer, "datamodule", None), "manifest", None)
    return None if manifest is None else manifest.classes


def environment(trainer: L.Trainer) -> dict[str, Any]:
    """Versions, source commit, hardware and precision of this process, as plain data."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "precision": str(trainer.precision),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "accelerator": type(trainer.accelerator).__name__,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cpu_cores": os.cpu_count(),
        "world_size": trainer.world_size,
        "num_nodes": trainer.num_nodes,
        "started_at_step": trainer.global_step,
    }


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The git commit of the source tree that ldm runs from, None outside one."""
    source = Path(ldm.__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None
    asked = subprocess.run(
        ["git", "-C", str(source), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return asked.stdout.strip() or None
