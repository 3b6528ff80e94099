"""What happens around training: averages, pictures, numbers, checkpoints."""

from ldm.callbacks.checkpoint import SaveCheckpoints
from ldm.callbacks.ema import EMA
from ldm.callbacks.latent_normalisation import LatentNormalisation
from ldm.callbacks.noise_level_loss import NoiseLevelLoss
from ldm.callbacks.reconstruction_grid import ReconstructionGrid
from ldm.callbacks.run_record import RunRecord
from ldm.callbacks.sample_grid import SampleGrid
from ldm.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "LatentNormalisation",
    "NoiseLevelLoss",
    "ReconstructionGrid",
    "RunRecord",
    "SampleGrid",
    "SaveCheckpoints",
    "Throughput",
]
