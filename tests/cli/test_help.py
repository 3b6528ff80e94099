"""Every help fits on two screens and explains every option."""

import argparse
import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ldm
from ldm.cli import all_commands, main
from ldm.cli.comparison import compare_latents
from ldm.cli.inspection import inspect
from ldm.cli.likelihood import likelihood
from ldm.cli.sample import sample
from ldm.cli.signature import build_parser
from ldm.data import pack
from ldm.encoding import encode
from ldm.exporting import export
from ldm.importing import import_weights
from ldm.quickstart import quickstart

ROOT = Path(ldm.__file__).parents[1]
SCREENS = 100  # lines of 120 columns
COMMANDS = {
    "pack": pack,
    "encode": encode,
    "sample": sample,
    "likelihood": likelihood,
    "export": export,
    "import": import_weights,
    "inspect": inspect,
    "compare-latents": compare_latents,
    "quickstart": quickstart,
}


def helped(capsys, monkeypatch, *argv):
    """What a help prints, in a terminal of 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    with contextlib.suppress(SystemExit):
        main(list(argv))
    return capsys.readouterr().out


def test_the_overview_names_every_command_with_what_it_does(capsys, monkeypatch):
    for argv in ([], ["-h"], ["--help"]):
        told = helped(capsys, monkeypatch, *argv)
        for name in all_commands():
            assert re.search(rf"^  {name} +\S.{{20,}}\.$", told, re.MULTILINE)
        assert len(told.splitlines()) <= 40
        assert max(map(len, told.splitlines())) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_is_short_and_complete(capsys, monkeypatch, name):
    told = helped(capsys, monkeypatch, name, "--help")
    assert len(told.splitlines()) <= SCREENS
    assert max(map(len, told.splitlines())) <= 120
    parser = build_parser(COMMANDS[name], name, skip=("run_command",))
    assert parser.description
    for action in parser._actions:
        assert action.help, f"{action.dest} is not explained"
        assert action.help is argparse.SUPPRESS or len(action.help) > 8
    assert "`" not in told.replace("`ldm pack`", "").replace("`ldm`", "")


@pytest.mark.parametrize("task", ["DiffusionTask", "AutoencoderTask", "ldm.tasks.DiffusionTask"])
def test_the_help_of_a_task_explains_each_of_its_options(capsys, monkeypatch, task):
    told = helped(capsys, monkeypatch, "fit", "--model.help", task)
    assert len(told.splitlines()) <= SCREENS
    explained = re.findall(r"^  --model\.(\w+) [^\n\[]+?(?:\n {10,}| {2,})([^\n(]+)", told, re.MULTILINE)
    names = {name for name, _ in explained}
    assert {"optimizer", "lr_scheduler", "seed", "compile", "autoencoder"} <= names
    assert all(len(text.strip()) > 8 for _, text in explained)


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_the_help_of_training_says_what_is_ours(capsys, monkeypatch, command):
    told = " ".join(helped(capsys, monkeypatch, command, "--help").split())
    for text in ("--config", "--run RUN", "A folder that has checkpoints is resumed", "--checkpoint.every_n_steps"):
        assert text in told


def test_the_help_of_a_script_names_the_script(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/sample.py", "--help"])
    assert helped(capsys, monkeypatch, "sample", "--help").startswith("usage: sample.py ")
    monkeypatch.setattr(sys, "argv", ["/bin/ldm", "sample", "--help"])
    assert helped(capsys, monkeypatch, "sample", "--help").startswith("usage: ldm sample ")


def test_train_py_is_the_command():
    argv = [sys.executable, str(ROOT / "train.py"), "fit", "--model.help", "DiffusionTask"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--model.net" in done.stdout


def test_version(capsys, monkeypatch):
    assert helped(capsys, monkeypatch, "--version").strip() == f"ldm {ldm.__version__}"
