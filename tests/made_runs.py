"""Run folders of tiny models made without training: what the tests of loading, sampling and encoding start from."""

import json
from pathlib import Path

import torch
import yaml

from ldm import checkpoints, runs
from ldm.autoencoders import AutoencoderLoss, KLAutoencoder
from ldm.conditioners import Conditioner, Label
from ldm.diffusion import Diffusion
from ldm.diffusion.paths import RectifiedFlow
from ldm.diffusion.predictions import Velocity
from ldm.networks import DiT
from ldm.tasks import AutoencoderTask, DiffusionTask

AUTOENCODER = {
    "in_channels": 1,
    "latent_channels": 2,
    "channels": 32,
    "channel_multipliers": [1, 2],
    "num_res_blocks": 1,
}
NET = {"input_size": 4, "in_channels": 2, "patch_size": 2, "width": 16, "depth": 1, "num_heads": 2}


def tiny_autoencoder(seed=0, measured=True):
    """Grey 8 x 8 images to 2 x 4 x 4 latents."""
    torch.manual_seed(seed)
    made = KLAutoencoder(**AUTOENCODER)
    if measured:
        made.set_statistics([0.1, -0.2], [0.5, 0.7], 10)
    return made.eval()


def shaken(module, seed=0):
    """With noise on every parameter, since a DiT starts as the identity and would tell no class from another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def autoencoder_run(folder, seed=0, measured=True):
    """A run folder that holds a finished autoencoder; its path as text."""
    task = AutoencoderTask(tiny_autoencoder(seed, measured), AutoencoderLoss())
    model = {
        "class_path": "ldm.tasks.AutoencoderTask",
        "init_args": {
            "autoencoder": {"class_path": "ldm.autoencoders.KLAutoencoder", "init_args": AUTOENCODER},
            "loss": {"class_path": "ldm.autoencoders.AutoencoderLoss", "init_args": {}},
        },
    }
    return save_run(folder, model, task, size=8)


def diffusion_task(classes=10, seed=0, path=None, autoencoder=None):
    torch.manual_seed(seed)
    conditioner = Conditioner([Label(classes, NET["width"])] if classes else [])
    net = shaken(DiT(**NET), seed)
    autoencoder = tiny_autoencoder() if autoencoder is None else autoencoder
    process = Diffusion(path or RectifiedFlow(), Velocity())
    return DiffusionTask(net, process, autoencoder, shaken(conditioner)).eval()


def label_conditioner(num_classes, width):
    """The block of a config."""
    label = {"class_path": "ldm.conditioners.Label", "init_args": {"num_classes": num_classes, "width": width}}
    return {"class_path": "ldm.conditioners.Conditioner", "init_args": {"embedders": [label]}}


def diffusion_model(net, conditioner, autoencoder_folder):
    """The model block of a config."""
    return {
        "class_path": "ldm.tasks.DiffusionTask",
        "init_args": {
            "net": {"class_path": "ldm.networks.DiT", "init_args": net},
            "diffusion": {
                "class_path": "ldm.diffusion.Diffusion",
                "init_args": {
                    "path": {"class_path": "ldm.diffusion.paths.RectifiedFlow"},
                    "prediction": {"class_path": "ldm.diffusion.predictions.Velocity"},
                },
            },
            "conditioner": conditioner,
            "autoencoder": {"class_path": "ldm.runs.load_autoencoder", "init_args": {"run": str(autoencoder_folder)}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
        },
    }


def diffusion_run(folder, autoencoder_folder, classes=10, seed=0, names=None):
    """A run folder that holds a diffusion model and names the autoencoder's run; its path as text."""
    conditioner = label_conditioner(classes, NET["width"]) if classes else None
    model = diffusion_model(NET, conditioner, autoencoder_folder)
    task = diffusion_task(classes, seed, autoencoder=runs.load_autoencoder(str(autoencoder_folder)))
    save_run(folder, model, task, size=None)
    if names is not None:
        (Path(folder) / runs.CLASSES).write_text(json.dumps(names))
    return str(folder)


def text_run(folder, autoencoder_folder, further=()):
    """A run folder that holds a diffusion model of captions, and of what `further` embedders read; its path as text."""
    text = {"width": 8, "depth": 1, "num_heads": 2, "context_length": 12, "vector_width": 16, "table_width": 4}
    embedders = [{"class_path": "ldm.conditioners.SmallText", "init_args": text}, *further]
    conditioner = {"class_path": "ldm.conditioners.Conditioner", "init_args": {"embedders": embedders}}
    block = {"class_path": "ldm.networks.blocks.AdaLNZeroCross", "init_args": {"context_width": 8}}
    model = diffusion_model({**NET, "block": block}, conditioner, autoencoder_folder)
    built = {k: v for k, v in model["init_args"].items() if k != "optimizer"}
    torch.manual_seed(0)
    task = runs.build({**model, "init_args": built}, Path(folder), trust_code=False)
    shaken(task.net)
    shaken(task.conditioner)
    return save_run(folder, model, task.eval(), size=None)


def save_run(folder, model, task, size, step=2):
    """config.yaml and one checkpoint, whose averages 0.9 and 0.99 are the weights plus 0.01 and plus 0.02."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": {"init_args": {"size": size}}}))
    checkpoint = {"global_step": step, "state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    checkpoint["state_dict"] = {name: tensor.clone() for name, tensor in checkpoint["state_dict"].items()}
    checkpoint["ema"] = {
        decay: {"weights": {name: p.detach() + shift for name, p in task.trained_parameters().items()}}
        for decay, shift in (("0.9", 0.01), ("0.99", 0.02))
    }
    checkpoints.write(checkpoint, folder / "checkpoints" / f"step-{step:08d}.ckpt")
    return str(folder)


def edit_config(folder, change):
    """Apply `change` to the model block's arguments in a folder's config.yaml."""
    path = Path(folder) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config["model"]["init_args"])
    path.write_text(yaml.safe_dump(config))


def walks(sampler):
    """Whether a sampler, a class, walks the path of the models here."""
    try:
        sampler(num_steps=4).check(RectifiedFlow())
    except ValueError:
        return False
    return True
