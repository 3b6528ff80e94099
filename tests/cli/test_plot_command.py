"""`ldm plot`: what it writes where, and what it refuses."""

from pathlib import Path

import pytest
import yaml
from made_runs import diffusion_run, edit_config
from PIL import Image

from ldm.cli import main
from ldm.cli.plot import PICTURES
from ldm.cli.signature import build_parser
from ldm.diffusion import Process
from ldm.quickstart import configs
from ldm.runs import load_process

CONFIGS = sorted(path for path in configs().resolve().rglob("*.yaml") if path.parent.name != "parts")
DIFFUSION = [path for path in CONFIGS if "diffusion" in yaml.safe_load(path.read_text())["model"]["init_args"]]
FLOW = next(path for path in DIFFUSION if path.stem == "dit_b_2_flow")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def said(capsys, *argv):
    main(["plot", *(str(word) for word in argv)])
    return capsys.readouterr().out.strip()


def test_the_picture_of_a_path_needs_the_config_alone(folder, capsys):
    assert said(capsys, "path", FLOW) == "path.png"
    assert said(capsys, "path", FLOW, "--out", "deep/down.png") == "deep/down.png"
    for name in ("path.png", "deep/down.png"):
        with Image.open(name) as picture:
            assert picture.format == "PNG"


@pytest.mark.parametrize("path", DIFFUSION, ids=lambda path: path.stem)
def test_the_process_of_every_config_is_built_without_the_rest(path):
    assert isinstance(load_process(path), Process)


def test_a_run_folder_stands_for_its_config(work, capsys):
    assert said(capsys, "path", "dit") == "path.png"
    assert type(load_process("dit").path).__name__ == "RectifiedFlow"


def test_anchors_and_short_forms_are_read(folder):
    Path("config.yaml").write_text(
        "shared: &path {class_path: ldm.diffusion.paths.Linear, init_args: {num_steps: 7}}\n"
        "model:\n  init_args:\n    diffusion:\n      class_path: ldm.diffusion.Diffusion\n"
        "      init_args:\n        path: *path\n        prediction: ldm.diffusion.predictions.V\n"
    )
    process = load_process("config.yaml")
    assert process.path.num_steps == 7
    assert type(process.prediction).__name__ == "V"


def test_an_image_under_noise(folder, capsys, few_digits):
    assert said(capsys, "noising", FLOW, few_digits / "train", "--num-times", 3) == "noising.png"
    before = Path("noising.png").read_bytes()
    said(capsys, "noising", FLOW, few_digits / "train", "--num-times", 3, "--seed", 1, "--size", 8)
    assert Path("noising.png").read_bytes() != before


def test_a_sampler_at_work(folder, capsys):
    argv = ["sampler", "ddim:eta=0.5", "--num-steps", 3, "--path", "linear:num_steps=10", "--num-samples", 20]
    assert said(capsys, *argv, "--out", "ddim.png") == "ddim.png"
    assert Path("ddim.png").stat().st_size > 10_000


def test_help_names_the_pictures_and_explains_their_options(folder, capsys):
    told = said(capsys, "--help")
    for name, picture in PICTURES.items():
        assert f"\n  {name} " in told
        with pytest.raises(SystemExit) as ended:
            main(["plot", name, "--help"])
        assert ended.value.code == 0
        page = capsys.readouterr().out
        assert page.startswith(f"usage: ldm plot {name} ")
        assert max(map(len, page.partition("\nsamplers:")[0].splitlines())) <= 120
        assert all(action.help for action in build_parser(picture, "plot")._actions)
    assert "\n  ddim " in page


def test_what_there_is_not(folder, refused, few_digits):
    assert "choose one of path, noising, sampler" in refused("plot")
    assert "There is no picture 'pth': choose one of path, noising, sampler" in refused("plot", "pth")
    assert "There is no file gone.yaml" in refused("plot", "path", "gone.yaml")
    assert "There is no file gone.yaml" in refused("plot", "noising", "gone.yaml", few_digits / "train")
    assert "gone" in refused("plot", "noising", FLOW, "gone")
    assert "There is no sampler 'ddin': choose one of" in refused("plot", "sampler", "ddin")
    assert "There is no path 'cosin': choose one of" in refused("plot", "sampler", "ddim", "--path", "cosin")
    assert not list(folder.glob("*.png"))


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "model: 3", "model: {init_args: 3}"])
def test_files_that_are_no_training_config(folder, refused, text):
    Path("wrong.yaml").write_text(text)
    told = refused("plot", "path", "wrong.yaml")
    assert "wrong.yaml" in told
    assert "give" in told


def test_configs_that_do_not_fit(folder, refused):
    autoencoder = next(path for path in CONFIGS if path not in DIFFUSION)
    assert "has no model.init_args.diffusion" in refused("plot", "path", autoencoder)
    cold = next(path for path in DIFFUSION if path.stem.startswith("cold"))
    assert "ldm plot noising" in refused("plot", "path", cold)
    config = yaml.safe_load(FLOW.read_text())
    config["model"]["init_args"]["diffusion"]["init_args"]["prediction"] = "ldm.diffusion.predictions.Eps"
    Path("eps.yaml").write_text(yaml.safe_dump(config))
    assert "Eps has no meaning on RectifiedFlow" in refused("plot", "path", "eps.yaml")


def test_foreign_code_is_not_run(work, refused):
    def change(arguments):
        arguments["diffusion"]["init_args"]["path"] = {"class_path": "os.system"}

    edit_config(diffusion_run("foreign", "ae"), change)
    assert "names os.system, which is not part of ldm" in refused("plot", "path", "foreign")


def test_numbers_without_meaning(folder, refused, few_digits):
    assert "--num-times must be 1 to 60" in refused("plot", "noising", FLOW, few_digits / "train", "--num-times", 0)
    assert "--num-lines" in refused("plot", "sampler", "ddim", "--num-lines", 0)
    assert "num_steps=0" in refused("plot", "sampler", "ddim", "--num-steps", 0)
