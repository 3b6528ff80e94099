"""Weights are read from any file that holds some, and no code is run."""

import argparse
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ldm.errors import UserError
from ldm.weight_files import read_tensors, unwrapped


def test_a_file_of_either_kind_gives_its_tensors_as_far_as_they_are_wanted(tmp_path):
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save({"model": {}, "ema": tensors, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pt")
    torch.save({"state_dict": tensors, "step": 7}, tmp_path / "w.ckpt")
    for name in ("w.safetensors", "w.pt", "w.ckpt"):
        found = read_tensors(tmp_path / name)
        assert found.keys() == tensors.keys()
        assert torch.equal(found["a"], tensors["a"])
        assert read_tensors(tmp_path / name, lambda key: key == "b").keys() == {"b"}


def test_weights_of_a_training_run_are_unwrapped_the_average_first():
    ema, model = {"a": torch.ones(1)}, {"a": torch.zeros(1)}
    assert unwrapped({"model": model, "ema": ema, "opt": {}}) is ema
    assert unwrapped({"model": model}) is model
    assert unwrapped(ema) is ema


def test_what_a_checkpoint_of_lightning_keeps_beside_its_weights_does_not_hinder(tmp_path, monkeypatch):
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, module.__name__, module)
        best = {"best_model_score": np.float64(0.5), "monitor": "val/rec_loss"}
        beside = {"callbacks": {module.ModelCheckpoint: best}, "lr": module.ModelCheckpoint()}
        torch.save({"state_dict": {"a": torch.ones(2)}, **beside}, tmp_path / "w.ckpt")
    found = read_tensors(tmp_path / "w.ckpt")
    assert found.keys() == {"a"}
    assert torch.equal(found["a"], torch.ones(2))


class Dangerous:
    def __reduce__(self):
        return print, ("run",)


def test_the_code_that_a_file_asks_for_is_named(tmp_path):
    torch.save({"a": Dangerous()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"running code of theirs \(it asks for print\), or are damaged"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "There is no file"),
        (b"hello", "w.pt cannot be read, because it is no file of weights"),
        (b"", "no file of weights"),
        (b"PK\x03\x04abc", "w.pt cannot be read without running code of theirs, or are damaged: if"),
        (pickle.dumps(Dangerous()), "without running code"),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_run(tmp_path, capsys, content, told):
    file = tmp_path / "w.pt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_tensors(file)
    assert capsys.readouterr().out == ""
