"""Stable Diffusion 3's weights: the density of a law of times, on the error of the velocity."""

from torch import Tensor

from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction, Velocity
from ldm.diffusion.timesteps import LogitNormal, Timesteps
from ldm.diffusion.weightings.base import Weighting


class FlowDensity(Weighting):
    """The density pi(t) of a law of times, on the error of the velocity.

    On RectifiedFlow this is w_t = t / (1 - t) pi(t) of Esser et al. 2024 (arXiv 2403.03206, section 3.1). With uniform
    times it trains, in the mean, what the law itself does under Uniform and the prediction Velocity: usually the law
    is better given as the timesteps of the process; here it is for times that are to be drawn in another way.

    Args:
        timesteps: The law: LogitNormal (left out), Mode or CosMap are the paper's.
    """

    def __init__(self, timesteps: Timesteps | None = None) -> None:
        self.timesteps = LogitNormal() if timesteps is None else timesteps

    def __call__(self, t: Tensor, path: NoisePath, prediction: Prediction) -> Tensor:
        on_x0 = self.timesteps.density(t, path) * Velocity().error_ratio(t, path)
        return on_x0 / prediction.error_ratio(t, path)

    def check(self, path: NoisePath, prediction: Prediction) -> None:
        self.timesteps.check(path)
        if self.timesteps.learns:
            raise ValueError(
                f"FlowDensity weighs by a fixed law of times and {type(self.timesteps).__name__} learns its own: use "
                "LogitNormal, Mode or CosMap."
            )
