import json
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from data_pictures import class_folders
from lightning.pytorch.callbacks import ModelCheckpoint

from ldm.data import Manifest, ShardData, pack
from ldm.errors import UserError


class Recorder(L.LightningModule):
    """Learns next to nothing and writes down what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[Any] = []
        self.val_seen: list[Any] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen.append((batch["positions"].tolist(), batch["keys"], batch["images"].sum().item()))
        return self.layer(batch["images"].mean().reshape(1, 1)).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.val_seen.append(batch["keys"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(packed: Path, **options: Any) -> ShardData:
    return ShardData(str(packed), **{"batch_size": 4, "size": 8, "num_workers": 0, **options})


def fit(
    packed: Path, root: Path, ckpt_path: Path | None = None, module: ShardData | None = None, **options: Any
) -> Any:
    callbacks = options.pop("callbacks", [])
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        default_root_dir=root,
        callbacks=callbacks,
        **options,
    )
    model = Recorder()
    trainer.fit(model, datamodule=module or data(packed), ckpt_path=ckpt_path)
    return trainer, model


@pytest.fixture(scope="module")
def fifteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 images in shards of 4: 3 batches of 4 an epoch."""
    root = tmp_path_factory.mktemp("module")
    pack(str(class_folders(root / "source")), str(root / "packed"), shard_size=4)
    return root / "packed"


@pytest.fixture(scope="module")
def whole(fifteen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    """An uninterrupted run of 9 batches that saves after each of them."""
    root = tmp_path_factory.mktemp("whole")
    every = ModelCheckpoint(root, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _, model = fit(fifteen, root, max_steps=9, callbacks=[every])
    assert len(model.seen) == 9
    assert [position for batch in model.seen for position in batch[0]] == list(range(36))
    return model.seen, root


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("limit", ["max_steps", "max_epochs"])
def test_resuming_from_a_step_checkpoint_sees_what_the_whole_run_saw(
    fifteen: Path, whole: tuple[list[Any], Path], tmp_path: Path, step: int, limit: str
) -> None:
    seen, root = whole
    ends: dict[str, Any] = {"max_steps": 9} if limit == "max_steps" else {"max_epochs": 3}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable.*")
        _, model = fit(fifteen, tmp_path, root / f"step={step}.ckpt", **ends)
    assert model.seen == seen[step:]


@pytest.mark.parametrize("stop", [1, 3, 4])
@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_a_run_that_max_steps_stopped(
    fifteen: Path, whole: tuple[list[Any], Path], tmp_path: Path, stop: int, workers: int
) -> None:
    trainer, first = fit(fifteen, tmp_path, max_steps=stop)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    module = data(fifteen, num_workers=workers)
    trainer, second = fit(fifteen, tmp_path, tmp_path / "last.ckpt", module, max_steps=stop + 3)
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    _, third = fit(fifteen, tmp_path, tmp_path / "again.ckpt", max_steps=9)
    assert first.seen + second.seen + third.seen == whole[0]


class Trip(L.Callback):
    """Raises before training on a batch that has been handed out already."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 4:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "trip.ckpt")
            raise KeyError


def test_a_batch_that_was_not_trained_on_comes_again(
    fifteen: Path, whole: tuple[list[Any], Path], tmp_path: Path
) -> None:
    with pytest.raises(KeyError):
        fit(fifteen, tmp_path, max_steps=9, callbacks=[Trip()])
    _, model = fit(fifteen, tmp_path, tmp_path / "trip.ckpt", max_steps=9)
    assert model.seen == whole[0][4:]


def test_limited_and_accumulated_epochs_go_through_the_same_order(
    fifteen: Path, whole: tuple[list[Any], Path], tmp_path: Path
) -> None:
    _, model = fit(fifteen, tmp_path, max_epochs=4, limit_train_batches=2)
    assert model.seen == whole[0][:8]
    _, model = fit(fifteen, tmp_path, max_epochs=3, accumulate_grad_batches=2)
    assert model.seen == whole[0]


def test_validation_runs_through_the_set_each_time(fifteen: Path, tmp_path: Path) -> None:
    module = data(fifteen, val_shards=str(fifteen))
    _, model = fit(fifteen, tmp_path, module=module, max_epochs=2, num_sanity_val_steps=0)
    assert [len(keys) for keys in model.val_seen] == [4, 4, 4, 3] * 2


def test_checkpoints_are_plain_data(whole: tuple[list[Any], Path], fifteen: Path) -> None:
    checkpoint = torch.load(whole[1] / "step=5.ckpt", weights_only=True)
    digest = Manifest.load(fifteen).digest()
    assert checkpoint["ShardData"] == {"consumed": 20, "seed": 0, "batch_size": 4, "manifest": digest}


@pytest.mark.parametrize(("field", "value"), [("seed", 1), ("batch_size", 2)])
def test_another_order_is_not_resumed(
    fifteen: Path, whole: tuple[list[Any], Path], tmp_path: Path, field: str, value: int
) -> None:
    old = {"seed": 0, "batch_size": 4}[field]
    with pytest.raises(UserError, match=f"{field} {old}, this run has {field} {value}"):
        fit(fifteen, tmp_path, whole[1] / "step=2.ckpt", data(fifteen, **{field: value}), max_steps=9)


def test_another_manifest_is_not_resumed(
    fifteen: Path, whole: tuple[list[Any], Path], packed: Path, tmp_path: Path
) -> None:
    pack(str(packed.parent / "source"), str(packed), shard_size=5, force=True)
    old, new = Manifest.load(fifteen).digest(), Manifest.load(packed).digest()
    with pytest.raises(UserError, match=f"manifest {old}, this run has manifest {new}"):
        fit(packed, tmp_path, whole[1] / "step=2.ckpt", max_steps=9)


def test_what_the_set_knows(packed: Path) -> None:
    module = data(packed)
    assert (module.num_classes, module.contract, module.shape) == (3, None, (3, 8, 8))
    assert data(packed, num_classes=10).num_classes == 10
    assert module.manifest == Manifest.load(packed)


def rewrite(packed: Path, **changes: Any) -> None:
    path = packed / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": None}, "size is missing"),
        ({"num_classes": 2}, "num_classes is 2, but .* has 3 classes"),
        ({"samples_per_epoch": 9}, "has a manifest: leave it out"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"channels": 4}, "channels is 4"),
        ({"val_shards": "nowhere"}, "nowhere is not a folder"),
    ],
)
def test_options_that_do_not_fit(packed: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        data(packed, **options).setup()


def test_folders_that_do_not_fit(packed: Path, tmp_path: Path) -> None:
    pack("digits", str(tmp_path / "digits"))
    with pytest.raises(UserError, match=r"differs from shards .* in classes"):
        data(packed, val_shards=str(tmp_path / "digits")).setup()
    with pytest.raises(UserError, match="is not a folder"):
        data(tmp_path / "nowhere").setup()
    (packed / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar is missing"):
        data(packed).setup()
    (packed / "manifest.json").unlink()
    (packed / ".packing").mkdir()
    with pytest.raises(UserError, match="incomplete"):
        data(packed).setup()


def test_overfit_batches_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="overfit_batches"):
        fit(packed, tmp_path, overfit_batches=2, max_steps=2)


def test_labels_beyond_num_classes_never_reach_the_model(packed: Path, tmp_path: Path) -> None:
    rewrite(packed, classes=["class0", "class1"])
    with pytest.raises(UserError, match=r"sample '.*' in shard .*: label '?2"):
        fit(packed, tmp_path, module=data(packed, num_workers=1), max_steps=9)
