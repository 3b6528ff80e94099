"""A trained model comes back from its folder as it was, or with one sentence; no file can make it run code."""

import os
import shutil
import sys
import warnings

import pytest
import torch
from made_runs import autoencoder_run, diffusion_run, diffusion_task, edit_config, shaken

from ldm import checkpoints, exporting, runs
from ldm.diffusion.guidance import ClassifierFree
from ldm.diffusion.samplers import DDIM
from ldm.errors import UserError
from ldm.sampling import Request, sample_images


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder with a diffusion run and its autoencoder's run, which it names relative to here."""
    monkeypatch.chdir(tmp_path)
    autoencoder_run("runs/ae")
    diffusion_run("runs/dit", "runs/ae")
    return tmp_path


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module outside ldm that leaves a file when it is imported."""
    (tmp_path / "evil.py").write_text(
        "import pathlib\nfrom ldm.networks import DiT\n"
        "pathlib.Path(__file__).with_name('sung').touch()\nclass Net(DiT): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "sung"
    sys.modules.pop("evil", None)


def images(task, count=4):
    return sample_images(task, Request(range(count), {"labels": [3, 7] * (count // 2)}, [ClassifierFree(2.0)]), DDIM(3))


def weights(folder, which):
    return runs.load(folder, which).net.head.linear.weight


def test_a_run_loads_in_eval_mode_with_its_first_average_or_what_is_asked_for(work):
    trained = diffusion_task()
    own = trained.net.head.linear.weight
    for which, shift in (("raw", 0.0), ("ema", 0.01), ("0.9", 0.01), ("0.99", 0.02)):
        torch.testing.assert_close(weights("runs/dit", which), own + shift, rtol=0, atol=1e-6)
    task = runs.load("runs/dit")
    assert not any(module.training for module in task.modules())
    assert task.autoencoder.fingerprint() == runs.load_autoencoder("runs/ae").fingerprint()
    with pytest.raises(UserError, match=r"no weights '0\.5': choose raw, ema, or one of 0\.9, 0\.99"):
        runs.load("runs/dit", "0.5")


def test_an_export_gives_the_same_images_anywhere_without_its_run(work, monkeypatch):
    expected = images(runs.load("runs/dit"))
    exporting.export("runs/dit", "published")
    shutil.rmtree("runs")
    assert sorted(os.listdir("published")) == ["config.yaml", "model.safetensors"]
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    assert torch.equal(images(runs.load("../published")), expected)
    shutil.move("../published", "here")
    assert torch.equal(images(runs.load("here")), expected)
    assert runs.load_autoencoder("here").latent_samples == 10


def test_an_export_has_one_set_of_weights_and_a_broken_one_is_told(work):
    exporting.export("runs/dit", "raw", weights="raw")
    torch.testing.assert_close(weights("raw", "ema"), weights("runs/dit", "raw"))
    with pytest.raises(UserError, match="one set of weights"):
        runs.load("raw", "0.99")
    data = (work / "raw" / "model.safetensors").read_bytes()
    for cut in (data[:-100], data[:5], b""):
        (work / "raw" / "model.safetensors").write_bytes(cut)
        with pytest.raises(UserError, match=r"raw cannot be loaded.*broken.*export the run again"):
            runs.load("raw")


def test_an_autoencoder_exports_with_its_size(work):
    exporting.export("runs/ae", "ae")
    assert runs.trained_size(work / "ae") == 8
    assert runs.load_autoencoder("ae").fingerprint() == runs.load_autoencoder("runs/ae").fingerprint()
    exporting.export("runs/dit", "dit")  # a run on latents: the size is that of its autoencoder's images
    assert runs.trained_size(work / "dit") == 8


def test_an_export_is_made_of_a_run_whose_autoencoder_came_from_another_diffusion_run(work, monkeypatch):
    diffusion_run("runs/second", "runs/dit")
    expected = images(runs.load("runs/second"))
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    exporting.export("../runs/second", "out")
    assert torch.equal(images(runs.load("out")), expected)


def test_an_export_replaces_an_older_export_and_nothing_else(work):
    exporting.export("runs/dit", "out")
    with pytest.raises(UserError, match="exists already"):
        exporting.export("runs/dit", "out")
    exporting.export("runs/dit", "out", force=True)
    (work / "precious.txt").write_text("mine")
    for target in ("runs/dit", ".", "precious.txt"):
        with pytest.raises(UserError, match=r"holds other things|is a file"):
            exporting.export("runs/dit", target, force=True)
    assert (work / "precious.txt").read_text() == "mine"
    assert runs.load("runs/dit")


def test_the_autoencoder_is_found_from_another_working_directory(work, monkeypatch):
    expected = images(runs.load("runs/dit"))
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    assert torch.equal(images(runs.load(work / "runs" / "dit")), expected)
    shutil.rmtree(work / "runs" / "ae")
    with pytest.raises(UserError, match=r"needs the autoencoder in runs/ae.*its new place into .*or use an export"):
        runs.load(work / "runs" / "dit")


def test_another_autoencoder_in_the_place_of_the_first_is_refused(work):
    shutil.rmtree("runs/ae")
    autoencoder_run("runs/ae", seed=1)
    with pytest.raises(UserError, match=r"autoencoder [0-9a-f]{12} and is given [0-9a-f]{12}"):
        runs.load("runs/dit")


def test_an_autoencoder_without_statistics_is_not_finished(work):
    autoencoder_run("runs/young", measured=False)
    with pytest.raises(UserError, match="runs/young is not finished"):
        runs.load_autoencoder("runs/young")


def test_weights_that_do_not_fit_the_config_are_refused_by_name(work):
    edit_config("runs/dit", lambda init_args: init_args["net"]["init_args"].update(depth=2))
    with pytest.raises(UserError, match=r"runs/dit cannot be loaded.*net\.blocks\.1\.\S+ is absent in the file"):
        runs.load("runs/dit")


def test_kinds_of_runs_are_told_apart(work):
    with pytest.raises(UserError, match="runs/ae holds an autoencoder"):
        runs.load_diffusion("runs/ae")
    shutil.copytree("runs/ae/checkpoints", "runs/dit/checkpoints", dirs_exist_ok=True)
    with pytest.raises(UserError, match="not of a diffusion model"):
        runs.load("runs/dit")


BROKEN = {
    "no yaml": "model: [",
    "no model": "data: {}",
    "a list": "[1, 2]",
    "text": "hello",
    "empty": "",
    "a name for a model": "model: ldm.tasks.DiffusionTask",
    "no class": "model: {init_args: {}}",
    "no arguments": "model: {class_path: ldm.tasks.DiffusionTask}",
    "empty arguments": "model: {class_path: ldm.tasks.DiffusionTask, init_args: }",
    "lacking arguments": "model: {class_path: ldm.tasks.DiffusionTask, init_args: {seed: 1}}",
    "text for an autoencoder": "model: {class_path: ldm.tasks.DiffusionTask, init_args: {autoencoder: x}}",
    "data of text": "model: {class_path: ldm.tasks.DiffusionTask, init_args: {}}\ndata: {init_args: x}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_config_is_one_sentence_that_names_it(work, text):
    (work / "runs" / "dit" / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"runs/dit/config\.yaml") as caught:
        runs.load("runs/dit")
    assert "\n" not in str(caught.value)


def test_a_value_that_a_constructor_refuses_is_one_sentence(work):
    edit_config("runs/dit", lambda init_args: init_args["net"]["init_args"].update(width=7))
    with pytest.raises(UserError, match=r"config\.yaml does not describe a model.*multiple of 4"):
        runs.load("runs/dit")


def test_what_is_no_run_folder_is_called_so(work):
    (work / "plain").mkdir()
    with pytest.raises(UserError, match=r"plain is not a run folder: it has no config\.yaml"):
        runs.load("plain")
    with pytest.raises(UserError, match="gone is not a run folder: it does not exist"):
        runs.load("gone")
    shutil.rmtree("runs/dit/checkpoints")
    with pytest.raises(UserError, match="no whole checkpoint"):
        runs.load("runs/dit")


# --- checkpoints that are cut short


def test_a_newer_checkpoint_that_is_not_whole_is_passed_over_with_a_warning(work):
    whole = work / "runs" / "dit" / "checkpoints" / "step-00000002.ckpt"
    expected = images(runs.load("runs/dit"))
    for number, damage in enumerate((lambda b: b[:-1000], lambda b: b"", lambda b: b[:500] + b"x" + b[501:]), start=3):
        newer = whole.with_name(f"step-{number:08d}.ckpt")
        newer.write_bytes(damage(whole.read_bytes()))
        shutil.copy(checkpoints.marker(whole), checkpoints.marker(newer))
    whole.with_name("step-00000008.ckpt").write_bytes(whole.read_bytes())  # its marker was never written
    checkpoints.marker(shutil.copy(whole, whole.with_name("step-00000009.ckpt"))).write_text("{")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = images(runs.load("runs/dit"))
    assert torch.equal(found, expected)
    told = [str(warning.message) for warning in caught if "Passing over" in str(warning.message)]
    assert len(told) == 5
    assert all(any(f"step-{number:08d}" in message for message in told) for number in (3, 4, 5, 8, 9))


def test_with_no_whole_checkpoint_the_run_is_refused(work):
    path = work / "runs" / "dit" / "checkpoints" / "step-00000002.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="bytes"), pytest.raises(UserError, match="no whole checkpoint"):
        runs.load("runs/dit")


# --- nothing in a file runs


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_a_pickle_payload_in_a_checkpoint_is_not_executed(work):
    checkpoints.write({"state_dict": {}, "x": Payload(work / "sung")}, work / "runs/dit/checkpoints/step-00000009.ckpt")
    with pytest.raises(UserError, match="is none of ldm's"):
        runs.load("runs/dit")
    assert not (work / "sung").exists()


FOREIGN = {
    "a class": lambda a: a["net"].update(class_path="evil.Net"),
    "a class in short form": lambda a: a.update(net="evil.Net"),
    "a class within a class": lambda a: a["diffusion"]["init_args"].update(path={"class_path": "evil.Net"}),
    "a short form within a class": lambda a: a["diffusion"]["init_args"].update(path="evil.Net"),
    "a short form within a class without a name": lambda a: a.update(diffusion={"path": "evil.Net"}),
    "in dict_kwargs": lambda a: a["net"].update(dict_kwargs={"x": {"class_path": "evil.Net"}}),
    "a file of config": lambda a: a.update(net="net.yaml"),
    "a module that ldm imports": lambda a: a["net"].update(class_path="ldm.runs.os.system"),
    "a function of ldm": lambda a: a["net"].update(class_path="ldm.runs.load"),
    "a class that ldm imports": lambda a: a["net"].update(class_path="ldm.networks.dit.nn.Linear"),
    "the system": lambda a: a["net"].update(class_path="os.system", init_args={"command": "touch sung"}),
    "a trusting autoencoder": lambda a: a.update(
        conditioner={"class_path": "ldm.runs.load_autoencoder", "init_args": {"run": "x", "trust_code": True}}
    ),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_code_from_outside_ldm_is_refused_unimported(work, canary, change):
    (work / "net.yaml").write_text("class_path: evil.Net\n")
    edit_config("runs/dit", change)
    with pytest.raises(UserError, match=r"not part of ldm.*--trust-code"):
        runs.load("runs/dit")
    assert not canary.exists()
    assert "evil" not in sys.modules


def test_a_model_block_that_names_the_loader_itself_is_refused(work, canary):
    evil = {"class_path": "ldm.runs.load", "init_args": {"folder": "runs/dit", "trust_code": True}}
    edit_config("runs/dit", lambda a: a["net"].update(class_path="evil.Net"))
    shutil.copytree("runs/dit", "runs/outer")
    (work / "runs" / "outer" / "config.yaml").write_text(str({"model": evil}))
    with pytest.raises(UserError, match=r"names ldm\.runs\.load, which is not part of ldm"):
        runs.load("runs/outer")
    assert not canary.exists()


def test_a_config_cannot_trust_its_autoencoder_by_itself(work, canary):
    edit_config("runs/ae", lambda a: a["autoencoder"].update(class_path="evil.Net"))
    edit_config("runs/dit", lambda a: a["autoencoder"]["init_args"].update(trust_code=True))
    with pytest.raises(UserError, match=r"runs/ae/config\.yaml names evil\.Net"):
        runs.load("runs/dit")
    assert not canary.exists()


def test_the_optimizer_of_a_config_is_never_imported(work, canary):
    for name in ("evil.Optimizer", "os.system"):
        edit_config("runs/dit", lambda a, name=name: a.update(optimizer={"class_path": name}))
        assert runs.load("runs/dit")
    exporting.export("runs/dit", "out")
    assert "evil" not in (work / "out" / "config.yaml").read_text()
    assert not canary.exists()


def test_with_trust_a_class_of_the_users_own_loads_and_exports(work, canary):
    edit_config("runs/dit", lambda a: a["net"].update(class_path="evil.Net"))
    with pytest.raises(UserError, match="--trust-code"):
        exporting.export("runs/dit", "out")
    exporting.export("runs/dit", "out", trust_code=True)
    task = runs.load("out", trust_code=True)
    assert type(task.net).__module__ == "evil"
    assert torch.equal(images(task), images(runs.load("runs/dit", trust_code=True)))


def test_loading_is_exact_for_shaken_weights(work):
    """The fixture tells models apart at all: other weights, other images."""
    task = runs.load("runs/dit")
    before = images(task)
    shaken(task.net, seed=5)
    assert not torch.allclose(images(task), before, atol=1e-2)
