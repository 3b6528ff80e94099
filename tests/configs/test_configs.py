"""Every YAML in configs/ is parsed, built and, with its tiny overlay, trained for two steps: no list to enter it in."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from ldm import checkpoints
from ldm.cli import main
from ldm.cli.training import TrainingCLI
from ldm.quickstart import configs
from ldm.tasks import Task

FOLDER = configs().resolve()
PARTS = sorted((FOLDER / "parts").glob("*.yaml"))
ALL = sorted(FOLDER.rglob("*.yaml"))
CONFIGS = [path for path in ALL if path not in PARTS]


def name(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def overlay(config: Path) -> list[str]:
    """The overlays that make a config tiny, by name."""
    model = yaml.safe_load(config.read_text())["model"]
    if model["class_path"].endswith("AutoencoderTask"):
        own = f"tiny_{config.stem}"
        if FOLDER / "parts" / f"{own}.yaml" in PARTS:
            return [own]
        return ["tiny_autoencoder", "tiny_terms"] if "LPIPS" in str(model) else ["tiny_autoencoder"]
    if model["class_path"].endswith("FeaturesTask"):
        return ["tiny_features"]
    net = model["init_args"]["net"]["class_path"].rpartition(".")[2].lower()
    if "Text" in str(model["init_args"].get("conditioner")):
        return ["tiny_text", f"tiny_text_{net}"]
    if model["init_args"]["autoencoder"]["class_path"].endswith("Pixels"):
        return ["tiny_unet" if net == "unet" else "tiny_pixels"]
    return ["tiny_dit" if "conditioner" in model["init_args"] else "tiny_unconditional"]


@pytest.mark.parametrize("path", ALL, ids=name)
def test_a_config_opens_with_its_command_and_what_was_measured(path: Path) -> None:
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment is not None
    lines = comment[0].splitlines()
    assert any(f" -c configs/{path.relative_to(FOLDER)}" in line for line in lines[:2])
    assert any(re.match(r"# Measured: \S", line) for line in lines)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_config_is_parsed_and_its_model_built(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights that are never written, so that they cost no memory; without data, autoencoder run and trainer."""
    for initialiser in ("kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_", "zeros_"):
        monkeypatch.setattr(torch.nn.init, initialiser, lambda tensor, *args, **kwargs: tensor)
    monkeypatch.setattr(TrainingCLI, "instantiate_trainer", lambda self, **kwargs: None)
    monkeypatch.setattr(TrainingCLI, "_run_subcommand", lambda self, subcommand: None)
    options = ["fit", "-c", str(path)]
    arguments = yaml.safe_load(path.read_text())["model"]["init_args"]
    if "net" in arguments:
        options += ["--model.init_args.autoencoder", "ldm.autoencoders.KLAutoencoder"]
    if "teacher" in arguments.get("autoencoder", {}).get("init_args", {}):
        options += ["--model.init_args.autoencoder.init_args.teacher", "ldm.autoencoders.KLAutoencoder"]
    task = TrainingCLI(options).model
    assert isinstance(task, Task)
    assert len(task.trained_parameters()) > 0


@pytest.fixture(scope="session")
def tiny(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the overlays want it: data/tiny, runs/tiny/autoencoder and data/tiny-latents."""
    folder = tmp_path_factory.mktemp("tiny")
    shutil.copytree(few_digits, folder / "data" / "tiny")
    autoencoder = [str(FOLDER / "photos" / "autoencoder.yaml"), "-c", str(FOLDER / "parts" / "tiny_autoencoder.yaml")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["pack", "shapes", "data/tiny-shapes", "--num-images", "20", "--val-fraction", "0.2"])
        main(["fit", "-c", *autoencoder])
        for part in ("train", "val"):
            out = f"data/tiny-latents/{part}"
            main(["encode", "runs/tiny/autoencoder", f"data/tiny/{part}", out, "--num-workers", "0"])
    return folder


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_config_in_its_tiny_form_trains_two_steps(path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    run = f"runs/tiny/{name(path)}"
    overlays = [word for part in overlay(path) for word in ("-c", str(FOLDER / "parts" / f"{part}.yaml"))]
    main(["fit", "-c", str(path), *overlays, "--run", run])
    newest = checkpoints.newest(Path(run))
    assert newest is not None
    assert newest.stem == "step-00000002"
    assert checkpoints.read(newest)["global_step"] == 2
    assert list(Path(run, "pictures").glob("*.png")) or overlay(path) == ["tiny_features"]
