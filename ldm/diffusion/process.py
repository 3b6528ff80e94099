"""A diffusion process: which path, what the network predicts, how losses are weighted, where times fall."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.timesteps import Timesteps, UniformTimesteps
from ldm.diffusion.weightings import Uniform, Weighting

Cond = TypeVar("Cond")  # opaque here: it goes from the caller to the network unread


class Diffusion(nn.Module):
    """Everything of a diffusion model that is not the network; it has no weights and draws no random numbers.

    Args:
        path: How data turn into noise: x_t = alpha(t) x0 + sigma(t) eps.
        prediction: What the network's output means.
        weighting: Weight of the squared error by noise level; left out, Uniform.
        timesteps: Which times are trained how often; left out, UniformTimesteps.

    Raises:
        ValueError: the prediction has no meaning on this path.
    """

    def __init__(
        self,
        path: NoisePath,
        prediction: Prediction,
        weighting: Weighting | None = None,
        timesteps: Timesteps | None = None,
    ) -> None:
        super().__init__()
        prediction.check(path)
        self.path = path
        self.prediction = prediction
        self.weighting = Uniform() if weighting is None else weighting
        self.timesteps = UniformTimesteps() if timesteps is None else timesteps

    def times(self, u: Tensor) -> Tensor:
        """Uniform numbers u (B,) in [0, 1) -> times (B,) that the path can be trained at."""
        return self.path.snap(self.timesteps(u))

    def loss(
        self, net: Callable[[Tensor, Tensor, Cond], Tensor], x0: Tensor, t: Tensor, eps: Tensor, cond: Cond
    ) -> Tensor:
        """Weighted squared error of the network's output, one number per sample: (B,).

        x0, eps: (B, C, ...) clean data of unit variance and standard normal noise; t: (B,) from `times`.
        Of a network with learned variance (2C channels out) only the first C enter.
        """
        x_t = self.path.add_noise(x0, eps, t)
        output = net(x_t, self.path.noise_condition(t).float(), cond)
        predicted, _ = split_variance(output, x0.shape[1])
        error = (predicted - self.prediction.target(x0, eps, t, self.path)).square()
        return self.weighting(t, self.path, self.prediction) * error.flatten(1).mean(1)

    def denoiser(self, net: Callable[[Tensor, Tensor, Cond], Tensor], cond: Cond) -> Denoise:
        """The network under one condition as a Denoise. It accepts t (B,) or 0-dim, on any device."""

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            t = t.to(x_t.device).expand(x_t.shape[0])
            output = net(x_t, self.path.noise_condition(t).float(), cond)
            predicted, variance = split_variance(output.to(x_t.dtype), x_t.shape[1])
            return Denoised(self.prediction.to_x0(predicted, x_t, t, self.path), variance)

        return denoise


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Output (B, C or 2C, ...) -> the prediction (B, C, ...) and the raw variance (B, C, ...) or None."""
    if output.shape[1] == channels:
        return output, None
    if output.shape[1] == 2 * channels:
        predicted, variance = output.chunk(2, dim=1)
        return predicted, variance
    raise ValueError(
        f"the network returned {output.shape[1]} channels for data of {channels}; build it to return "
        f"{channels}, or {2 * channels} when it learns the variance too."
    )
