"""The guided tour: every command of a project once, on 1,797 scanned digits, and what came of it in numbers."""

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.svm import SVC
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchvision.transforms.v2.functional import pil_to_tensor

import ldm
from ldm import runs
from ldm.atomic import write_bytes
from ldm.data import ShardDataset
from ldm.data.manifest import MANIFEST
from ldm.data.transform import ImageTransform
from ldm.evaluation import precision_recall

OUT = "runs/quickstart"
CLASSES = [str(digit) for digit in range(10)]
MEASURED = 400  # images behind the printed numbers; the grid shows 100 others

console = Console(highlight=False, soft_wrap=True)


def quickstart(run_command: Callable[[list[str]], None], out: str = OUT, guidance_scale: float = 1.5) -> None:
    """Train a class-conditional latent diffusion model on scanned digits and measure it, from nothing, in minutes.

    Every step is a plain `ldm` command, which is printed before it runs. Stopped and started again, the tour goes on
    where it was.

    Args:
        run_command: runs one `ldm` command, given its arguments.
        out: folder for shards, runs and pictures.
        guidance_scale: classifier-free guidance of the samples; more makes clearer digits of less variety.
    """
    start = time.monotonic()
    folder = Path(out)
    for number, (title, command) in enumerate(tour(folder, guidance_scale), start=1):
        console.print(f"\n[bold]{number}. {title}[/bold]\n   $ ldm {shlex.join(command)}", markup=True)
        if command[0] == "pack" and all((folder / "shards" / s / MANIFEST).is_file() for s in ("train", "val")):
            console.print("   The shards are there already.")
            continue
        begun = time.monotonic()
        run_command(command)
        console.print(f"   {time.monotonic() - begun:.0f} s")
    console.print("\n[bold]What came of it[/bold]")
    report(folder, guidance_scale)
    console.print(
        f"\nThe grid of samples, one column a digit: {folder / 'samples' / 'grid.png'}\n"
        f"How they came out of the noise: {folder / 'samples' / 'film.gif'}\n"
        f"Curves: tensorboard --logdir {folder}\n"
        f"The whole tour took {time.monotonic() - start:.0f} s. With images of your own: see the README."
    )


def tour(folder: Path, guidance_scale: float) -> list[tuple[str, list[str]]]:
    """Title and arguments of each command."""
    shards, latents = folder / "shards", folder / "latents"
    autoencoder, dit = folder / "autoencoder", folder / "dit"
    asked = ["--classes", *CLASSES, "--guidance-scale", str(guidance_scale), "--num-steps", "25", "--batch-size", "100"]
    pictures = ["--out", str(folder / "samples"), "--grid", "--film", "gif"]
    others = ["--out", str(folder / "measured"), "--seed", "1000"]
    trained = {"model.init_args.autoencoder.init_args.run": autoencoder}
    return [
        ("Pack the images into shards, a fifth held out", ["pack", "digits", str(shards), "--val-fraction", "0.2"]),
        ("Train an autoencoder on them", fit("autoencoder", folder, {"run": autoencoder, **data(shards)})),
        ("Encode the images, once", ["encode", str(autoencoder), str(shards / "train"), str(latents / "train")]),
        ("... and those held out", ["encode", str(autoencoder), str(shards / "val"), str(latents / "val")]),
        ("Train a diffusion transformer", fit("dit", folder, {"run": dit, **data(latents), **trained})),
        ("Sample ten of each class", ["sample", str(dit), *asked, "--num-images", "100", *pictures]),
        ("Sample others to measure", ["sample", str(dit), *asked, "--num-images", str(MEASURED), *others]),
    ]


def data(shards: Path) -> dict[str, Path]:
    return {"data.init_args.shards": shards / "train", "data.init_args.val_shards": shards / "val"}


def fit(config: str, folder: Path, options: dict[str, Path]) -> list[str]:
    """A `fit` command; the options stand in the config already if the tour uses its usual folder."""
    overrides = [] if folder == Path(OUT) else [word for k, v in options.items() for word in (f"--{k}", str(v))]
    return ["fit", "-c", str(configs() / "quickstart" / f"{config}.yaml"), *overrides]


def configs() -> Path:
    """The folder of configs: beside the package in a source tree, inside it when installed from a wheel."""
    package = Path(ldm.__file__).parent
    inside = package / "configs"
    found = inside if inside.is_dir() else package.parent / "configs"
    return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found


def report(folder: Path, guidance_scale: float) -> None:
    """Print reconstruction quality, class agreement, precision and recall, beside the same for real digits.

    The numbers also go into report.json, agreement, precision and recall as (generated, real) pairs.
    """
    size = runs.trained_size(folder / "autoencoder")
    assert size is not None
    train, train_labels = digits(folder / "shards" / "train", size)
    held_out, held_out_labels = digits(folder / "shards" / "val", size)
    samples, asked = generated(folder / "measured")
    classifier = SVC(C=10).fit(pixels(train), train_labels)
    agreement = classifier.score(pixels(samples), asked), classifier.score(pixels(held_out), held_out_labels)
    table = Table("", "generated", "real, held out", title=f"{len(samples)} samples at guidance scale {guidance_scale}")
    table.add_row(
        "read as the class asked for (SVM fitted on real digits)", *(f"{100 * share:.1f} %" for share in agreement)
    )
    # The yardstick for real digits: as many training digits as there are samples, against those held out.
    sampled, real = (precision_recall(pixels(held_out), pixels(x)) for x in (samples, train[: len(samples)]))
    table.add_row("precision (looks like a held-out digit)", f"{sampled[0]:.2f}", f"{real[0]:.2f} (training digits)")
    table.add_row("recall (variety of the held-out digits)", f"{sampled[1]:.2f}", f"{real[1]:.2f} (training digits)")
    console.print(table)
    psnr = reconstruction_psnr(folder, held_out)
    console.print(f"Reconstruction of held-out digits: PSNR {psnr:.1f} dB")
    pairs = {"agreement": agreement, "precision": (sampled[0], real[0]), "recall": (sampled[1], real[1])}
    numbers = {"psnr": psnr, "guidance_scale": guidance_scale, "num_samples": len(samples), **pairs}
    write_bytes(folder / "report.json", (json.dumps(numbers, indent=1) + "\n").encode())


def digits(shards: Path, size: int) -> tuple[Tensor, np.ndarray]:
    """Images (N, 1, size, size) in [-1, 1] and labels (N,) of a packed set."""
    samples = list(ShardDataset(shards, ImageTransform(size, "center", flip=False), channels=1).samples())
    return torch.stack([sample["image"] for sample in samples]), np.array([sample["labels"] for sample in samples])


def generated(folder: Path) -> tuple[Tensor, np.ndarray]:
    """The PNGs that `sample` wrote, as images (N, 1, H, W) in [-1, 1], and the class asked for of each."""
    images, labels = [], []
    for number in range(MEASURED):
        with Image.open(folder / f"{number:06d}.png") as picture:
            images.append(pil_to_tensor(picture)[:1] / 127.5 - 1)
            labels.append(int(picture.info["class"]))
    return torch.stack(images), np.array(labels)


def pixels(images: Tensor) -> np.ndarray:
    return images.flatten(1).numpy()


@torch.inference_mode()
def reconstruction_psnr(folder: Path, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images that went through the autoencoder."""
    autoencoder = runs.load_autoencoder(str(folder / "autoencoder"))
    parts = [autoencoder.decode(autoencoder.encode(part).mode) for part in torch.split(images, 100)]
    return peak_signal_noise_ratio(torch.cat(parts).clamp(-1, 1), images, data_range=(-1.0, 1.0)).item()
