"""Starting a new run from the weights of another model, as far as they fit."""

from ldm.adapting.adapt import adapt
from ldm.adapting.autoencoders import adapt_autoencoder
from ldm.adapting.report import Report
from ldm.adapting.source import Source, read_source

__all__ = ["Report", "Source", "adapt", "adapt_autoencoder", "read_source"]
