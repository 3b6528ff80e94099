"""Lightning's advertisements and its remarks on what is meant so, kept off the user's screen."""

import logging
import os
import warnings

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


def quiet_lightning() -> None:
    """Filter the messages above; everything else still comes through."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_meant_to_be_said)
