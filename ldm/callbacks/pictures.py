"""Where the pictures of a training run go."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

PICTURES = "pictures"


def publish(trainer: L.Trainer, picture: Image.Image, name: str) -> None:
    """Write a picture into the run folder and to TensorBoard, if that is the logger."""
    step = trainer.global_step
    path = Path(trainer.default_root_dir) / PICTURES / f"{name}-{step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    if isinstance(trainer.logger, TensorBoardLogger):
        trainer.logger.experiment.add_image(name, pil_to_tensor(picture), step)
