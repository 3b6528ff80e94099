"""Run folders to ask things of, and a command line that must end in one sentence."""

import pytest
from made_runs import autoencoder_run, diffusion_run

from ldm.cli import main


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The working directory, with the runs ae, dit (ten classes) and plain (no classes)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    autoencoder_run("ae")
    diffusion_run("dit", "ae")
    diffusion_run("plain", "ae", classes=None)
    return tmp_path


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused, and gives the one sentence that it says."""

    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in argv])
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert told.count("ldm: error: ") == 1
        sentence = told.partition("ldm: error: ")[2].rstrip("\n")
        assert "\n" not in sentence
        assert len(sentence) < 500
        return sentence

    return run
