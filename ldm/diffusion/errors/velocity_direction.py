"""The direction of the velocity besides its size."""

import math

import torch
from torch import Tensor

from ldm.diffusion.errors.base import Error
from ldm.diffusion.errors.mse import MSE
from ldm.diffusion.predictions import Prediction, Velocity

SMALL = 0.1  # an output this many times shorter than its target is measured as if it were that long


class VelocityDirection(Error):
    """error + weight * mean (1 - cosine of output and target over the channels).

    LightningDiT's velocity direction loss (Yao et al. 2025, arXiv 2501.01423). Where the output is near 0, as that of
    an untrained network is, the cosine's slope is kept from exploding.

    Args:
        error: The error that the direction is added to; left out, MSE.
        weight: Weight of the direction, at least 0; 1 is the paper's.
    """

    def __init__(self, error: Error | None = None, weight: float = 1.0) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight={weight} is none; choose a finite number of at least 0 (1 is usual).")
        self.error = MSE() if error is None else error
        self.weight = weight

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(target, dim=1).clamp(min=1e-12)
        own = torch.linalg.vector_norm(output, dim=1).maximum(SMALL * length)
        cosine = (output * target).sum(1) / (own * length)  # (B, ...)
        apart: Tensor = (1 - cosine).reshape(len(output), -1).mean(1)
        return self.error(output, target) + self.weight * apart

    def check(self, prediction: Prediction) -> None:
        self.error.check(prediction)
        if not isinstance(prediction, Velocity):
            raise ValueError(
                f"VelocityDirection compares directions of motion and {type(prediction).__name__} predicts none: use "
                "the prediction Velocity, or the error MSE."
            )
