"""Runs of a TinyDecoder: they name their teacher's run, hold no weight of it, and draw what is sampled."""

from pathlib import Path

import pytest
import torch
from made_runs import autoencoder_run, diffusion_run, save_run
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm import checkpoints, exporting, runs
from ldm.autoencoders import AutoencoderLoss, TinyDecoder
from ldm.autoencoders.tiling import decode_tiled
from ldm.cli import main
from ldm.diffusion.samplers import DDIM
from ldm.errors import UserError
from ldm.images import to_uint8
from ldm.sampling import Request, sample_images
from ldm.tasks import AutoencoderTask, DiffusionTask

LOADER = "ldm.runs.load_autoencoder"


def tiny_run(folder: str, teacher: str) -> str:
    torch.manual_seed(0)
    made = TinyDecoder(runs.load_autoencoder(teacher), channels=8, num_res_blocks=1)
    named = {"class_path": LOADER, "init_args": {"run": teacher}}
    arguments = {"teacher": named, "channels": 8, "num_res_blocks": 1}
    model = {
        "class_path": "ldm.tasks.AutoencoderTask",
        "init_args": {
            "autoencoder": {"class_path": "ldm.autoencoders.TinyDecoder", "init_args": arguments},
            "loss": {"class_path": "ldm.autoencoders.AutoencoderLoss", "init_args": {"kl_weight": 0.0}},
        },
    }
    return save_run(folder, model, AutoencoderTask(made, AutoencoderLoss(kl_weight=0.0)), size=8)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the runs ae, its pupil tiny, and dit on ae's latents."""
    monkeypatch.chdir(tmp_path)
    autoencoder_run("runs/ae")
    tiny_run("runs/tiny", "runs/ae")
    diffusion_run("runs/dit", "runs/ae")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["sample", *argv, "--accelerator", "cpu", "--num-steps", "2", "--num-images", "2"])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_run_holds_its_own_weights_alone_and_finds_its_teacher_from_anywhere(
    work: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = checkpoints.read(checkpoints.newest(Path("runs/tiny")))["state_dict"]
    assert not any("teacher" in name for name in saved)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    loaded = runs.load_autoencoder(str(work / "runs/tiny"))
    assert loaded.fingerprint() == runs.load_autoencoder(str(work / "runs/ae")).fingerprint()


def test_another_teacher_in_its_place_is_refused(work: Path) -> None:
    autoencoder_run("runs/ae", seed=1)
    with pytest.raises(UserError, match="learned from autoencoder"):
        runs.load("runs/tiny")


def test_a_missing_teacher_is_named(work: Path) -> None:
    (work / "runs/ae").rename(work / "moved")
    with pytest.raises(UserError, match="needs the autoencoder in runs/ae"):
        runs.load("runs/tiny")


def test_an_export_carries_the_teacher(work: Path) -> None:
    before = runs.load_autoencoder("runs/tiny").state_dict()
    exporting.export("runs/tiny", "exported")
    diffusion_run("runs/on_tiny", "runs/tiny")
    exporting.export("runs/on_tiny", "exported_dit")
    for run in ("runs/ae", "runs/tiny", "runs/on_tiny"):
        (work / run).rename(work / run.replace("/", "_"))
    for folder in ("exported", "exported_dit"):
        torch.testing.assert_close(runs.load_autoencoder(folder).state_dict(), before)
    assert isinstance(runs.load("exported_dit"), DiffusionTask)


def test_sampling_draws_with_the_decoder_and_in_tiles(work: Path) -> None:
    task, request = runs.load_diffusion("runs/dit"), Request(range(2))
    pupil = runs.load_autoencoder("runs/tiny").requires_grad_(False)
    latents: list[torch.Tensor] = []
    sample_images(task, request, DDIM(2), decode=lambda z: latents.append(z) or task.autoencoder.decode(z))
    common = ["--num-images", "2", "--num-steps", "2", "--accelerator", "cpu"]
    cases = {
        "drawn": (["--decoder", "runs/tiny"], pupil.decode(latents[0])),
        "tiled": (["--tile", "4"], decode_tiled(task.autoencoder, latents[0], 4)),
    }
    for out, (options, expected) in cases.items():
        main(["sample", "runs/dit", "--out", out, *options, *common])
        for number, image in enumerate(to_uint8(expected.clamp(-1, 1)).int()):
            with Image.open(f"{out}/{number:06d}.png") as picture:
                assert (pil_to_tensor(picture).int() - image).abs().max() <= 1
                assert picture.info.get("decoder") == ("runs/tiny" if out == "drawn" else None)
    assert not torch.allclose(cases["drawn"][1], task.autoencoder.decode(latents[0]), atol=0.02)


def test_decoders_of_other_latents_and_tiles_that_do_not_fit_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    autoencoder_run("runs/other", seed=1)
    tiny_run("runs/tiny_other", "runs/other")
    mine, others = (runs.load_autoencoder(run).fingerprint()[:12] for run in ("runs/ae", "runs/other"))
    told = refused(capsys, "runs/dit", "--decoder", "runs/tiny_other")
    assert mine in told
    assert others in told
    assert "multiple of 2" in refused(capsys, "runs/dit", "--tile", "5")
