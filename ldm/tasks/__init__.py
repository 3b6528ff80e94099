"""The LightningModules: plumbing between data, networks and mathematics."""

from ldm.tasks.autoencoder import AutoencoderTask
from ldm.tasks.base import Task
from ldm.tasks.diffusion import DiffusionTask
from ldm.tasks.features import FeaturesTask

__all__ = ["AutoencoderTask", "DiffusionTask", "FeaturesTask", "Task"]
