"""What warnings look like, and Lightning's remarks on what is meant so, kept off the user's screen."""

import logging
import os
import warnings
from pathlib import Path

REMARKS = ("litlogger", "litmodels", "`weights_only` was not set", "GPU available", "TPU available", "HPU available")
WARNINGS = (
    ".*treespec, LeafSpec.*",
    ".*smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # the frozen autoencoder is
    ".*does not have many workers.*",  # for small data none are quicker
    ".*Consider setting `persistent_workers=True`.*",
    ".*`IterableDataset` has `__len__` defined.*",  # a stream's workers share out its samples by themselves
    ".*exists and is not empty.*",  # a run folder that is resumed
    ".*recommended to use `self.log.*sync_dist=True`.*",  # torchmetrics has synchronised already
)


def _meant_to_be_said(record: logging.LogRecord) -> bool:
    return not any(remark in record.getMessage() for remark in REMARKS)


def short_warnings() -> None:
    """Print our own warnings as one line that is for users; those of other packages stay as they are."""
    usual, ours = warnings.formatwarning, Path(__file__).parents[1]

    def format_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if Path(filename).is_relative_to(ours):
            return f"ldm: warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    if usual.__module__ == "warnings":  # not done before
        warnings.formatwarning = format_warning


def quiet_lightning() -> None:
    """Filter the messages above; everything else still comes through."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_meant_to_be_said)
