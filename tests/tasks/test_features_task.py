"""FeaturesTask: a vision network trained from nothing, and its features through an export."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny_models import Losses, adam, digit_data, fit

from ldm import runs
from ldm.cli import main
from ldm.errors import UserError
from ldm.frozen_files import gather_files
from ldm.inspecting import model_facts
from ldm.nn.features import TimmFeatures
from ldm.tasks import FeaturesTask
from ldm.tasks.base import BatchNoise
from ldm.tasks.features import all_turns

MODEL = "test_resnet"


def task(seed=0):
    torch.manual_seed(seed)
    return FeaturesTask(MODEL, adam)


def test_the_first_step_is_the_loss_written_out(few_digits, tmp_path):
    losses = Losses()
    fit(task(), digit_data(few_digits, size=32), tmp_path, 1, [losses])
    trained, data = task(), digit_data(few_digits, size=32)
    data.setup("fit")
    images = next(iter(data.train_dataloader()))["images"]
    turns = (BatchNoise(0, 0, torch.arange(12), 12).uniform() * 4).long().tolist()
    assert len(set(turns)) > 2
    turned = torch.stack([image.rot90(n, (1, 2)) for image, n in zip(images, turns, strict=True)])
    assert losses.by_batch[0] == pytest.approx(F.cross_entropy(trained(turned), torch.tensor(turns)).item(), rel=1e-4)


def test_turns_are_four_and_undo_each_other():
    images = torch.rand(2, 3, 5, 5)
    turned = all_turns(images)
    assert torch.equal(turned[0], images)
    assert torch.equal(turned[1].rot90(-1, (2, 3)), images)
    assert torch.equal(turned[2].flip(2, 3), images)


def test_validation_counts_every_turn(few_digits, tmp_path):
    """A network that says "upright" of everything is right a quarter of the time."""
    sure = task()
    torch.nn.init.zeros_(sure.head.weight)
    with torch.no_grad():
        sure.head.bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    data = digit_data(few_digits, size=32)
    trainer = fit(sure, data, tmp_path, 0, limit_val_batches=1.0)
    (measured,) = trainer.validate(sure, data, verbose=False)
    assert measured["val/accuracy"] == 0.25


def test_an_export_gives_the_features_of_the_run(few_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"shards": f"{few_digits}/train", "val_shards": f"{few_digits}/val", "size": 32, "channels": 1}
    data |= {"batch_size": 12, "num_workers": 0}
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 3, "limit_val_batches": 1, "logger": False}
    trainer |= {"num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False}
    config = {
        "run": "run",
        "model": {"class_path": "ldm.tasks.FeaturesTask", "init_args": {"model": MODEL}},
        "data": {"class_path": "ldm.data.ShardData", "init_args": data},
        "trainer": trainer,
    }
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "-c", "features.yaml"])
    main(["export", "run", "out"])
    facts = model_facts(tmp_path / "out", trust_code=False)
    assert (facts["kind"], facts["latents"]) == ("export of a feature network", None)
    trained = runs.load("run")
    assert isinstance(trained, FeaturesTask)
    features = TimmFeatures(MODEL, "out")
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = trained.backbone(trained.features.prepared(images))
    assert torch.equal(features.pooled(images), expected)
    assert not torch.equal(expected, TimmFeatures(MODEL).pooled(images))
    assert features.fingerprint() == TimmFeatures(MODEL, "out/model.safetensors").fingerprint()
    block = {"class_path": "ldm.nn.features.TimmFeatures", "init_args": {"model": MODEL, "weights": "out"}}
    (carried,) = gather_files(block).values()  # what an export of a model with these features takes along
    assert carried == (tmp_path / "out" / "model.safetensors").resolve()
    with pytest.raises(UserError, match="run holds no autoencoder"):
        runs.load_autoencoder("run")
    with pytest.raises(UserError, match="run holds a feature network"):
        runs.load_diffusion("run")
    with pytest.raises(UserError, match="there is no such file"):
        TimmFeatures(MODEL, "run").pooled(images)
