"""`fit` and `validate`: LightningCLI, one folder a run."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ldm import checkpoints
from ldm.callbacks import LatentNormalisation, RunRecord, SaveCheckpoints
from ldm.cli.explain import explain
from ldm.cli.quiet import quiet_lightning
from ldm.data import ShardData
from ldm.errors import UserError
from ldm.tasks import AutoencoderTask, Task

INIT_FROM = "init_from.json"  # of a run folder: which weights it started from


def train(argv: list[str]) -> None:
    """Run `fit` or `validate` with the given arguments."""
    quiet_lightning()
    try:
        TrainingCLI(argv)
    except ArgumentError as error:
        if "are required" in str(error) and not any(word.startswith(("-c", "--c")) for word in argv):
            raise UserError(f"{argv[0]} needs a config: pass -c CONFIG.yaml, one of configs/ or your own.") from error
        raise UserError(explain(str(error))) from error


class TrainingCLI(LightningCLI):
    """Reads the config, gives the trainer its run folder, and resumes from the newest whole checkpoint."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        strict = {"exit_on_error": False}
        super().__init__(
            Task,
            ShardData,
            save_config_callback=None,
            trainer_defaults={"use_distributed_sampler": False},
            seed_everything_default=0,
            parser_kwargs={**strict, "fit": dict(strict), "validate": dict(strict), "prog": program()},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        skipped = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
        return {"fit": skipped, "validate": skipped}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run",
            type=str,
            required=True,
            help="Run folder: checkpoints, config, logs and pictures. A folder that has checkpoints is resumed.",
        )
        parser.add_lightning_class_args(SaveCheckpoints, "checkpoint")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self.argv)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would load the checkpoint unchecked here and let it override the config's model."""

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; a value that a constructor refuses is the user's to mend."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raise UserError(explain(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        run = Path(self._get(self.config_init, "run"))
        settings = self._get(self.config_init, "trainer")
        settings["callbacks"] = self.callbacks(settings.get("callbacks") or [])
        if settings.get("logger") is None:
            settings["logger"] = TensorBoardLogger(run, name="", version="logs", sub_dir="")
        return super().instantiate_trainer(
            default_root_dir=str(run), plugins=[*(settings.get("plugins") or []), checkpoints.AtomicCheckpointIO()]
        )

    def callbacks(self, configured: list[L.Callback]) -> list[L.Callback]:
        """The config's callbacks and those that are always there."""
        return [*configured, RunRecord(self.plain_config()), LatentNormalisation()]

    def plain_config(self) -> str:
        """The resolved config as YAML."""
        parser = self._parser(self.subcommand)
        return parser.dump(self.config[self.subcommand], skip_none=False, format="yaml")

    def before_fit(self) -> None:
        self.resume()
        if self.config_init[self.subcommand].ckpt_path is None and getattr(self.model, "init_from", None) is not None:
            self.start_from(self.model.init_from)

    def before_validate(self) -> None:
        self.resume()
        if self.config_init[self.subcommand].ckpt_path is None:
            run = self._get(self.config_init, "run")
            raise UserError(f"{run} has no whole checkpoint to validate: train it first with `fit`.")

    def resume(self) -> None:
        """Point the trainer at the newest whole checkpoint of the run folder, unless one is named."""
        config = self.config_init[self.subcommand]
        if config.ckpt_path in (None, "last"):
            newest = checkpoints.newest(Path(config.run))
            config.ckpt_path = None if newest is None else str(newest)
        elif not Path(config.ckpt_path).is_file():
            raise UserError(f"There is no checkpoint {config.ckpt_path}: leave ckpt_path out to take the newest one.")
        if config.ckpt_path and self.trainer.is_global_zero:
            print(f"Resuming from {config.ckpt_path}")

    def start_from(self, init_from: str) -> None:
        """Give a new run the weights of another model, and say which; averages are copied from them later."""
        from ldm.adapting import adapt, adapt_autoencoder, read_source

        manifest = self.datamodule.manifest
        if isinstance(self.model, AutoencoderTask):
            report = adapt_autoencoder(self.model.autoencoder, init_from)
        else:
            report = adapt(self.model, read_source(init_from), None if manifest is None else manifest.classes)
        if self.trainer.is_global_zero:
            report.show()
            report.write(Path(self._get(self.config_init, "run")) / INIT_FROM)


def program() -> str:
    script = Path(sys.argv[0]).name
    return script if script == "train.py" else "ldm"
