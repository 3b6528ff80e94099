"""A diffusion process: which path, what the network predicts, and what it is trained to make small."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.errors import MSE, Error
from ldm.diffusion.objectives import Example, Objective, Simple
from ldm.diffusion.paths import NoisePath, Path
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.self_conditioning import remembering, wants_estimate, with_first_look
from ldm.diffusion.shapes import per_sample
from ldm.diffusion.timesteps import Timesteps, UniformTimesteps
from ldm.diffusion.weightings import Uniform, Weighting

MOST_KNOWN = 10_000  # times whose coefficients are kept

Cond = TypeVar("Cond")  # opaque here: it goes from the caller to the network unread


class Process(nn.Module, ABC):
    """Everything of a generative model by gradual restoration that is not the network. It draws no random numbers."""

    path: Path
    timesteps: Timesteps

    def times(self, u: Tensor) -> Tensor:
        """Uniform numbers u (B,) in [0, 1), those of a whole batch -> times (B,) that the path can be trained at."""
        return self.quantile(self.timesteps.spread(u))

    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a share u of the training times lies, each element by itself."""
        return self.path.snap(self.timesteps.quantile(u, self.path))

    def heard(self, t: Tensor, x: Tensor) -> Tensor:
        """What the network is told of the noise level at t (B,): float32, or float64 where x is."""
        return self.path.noise_condition(t).to(torch.float64 if x.dtype == torch.float64 else torch.float32)

    @abstractmethod
    def loss(
        self, net: Callable[[Tensor, Tensor, Cond], Tensor], x0: Tensor, t: Tensor, eps: Tensor, cond: Cond
    ) -> Tensor:
        """What training makes small, one number per sample: (B,).

        x0, eps: (B, C, ...) clean data of unit variance and standard normal noise; t: (B,) from `times`.
        """

    @abstractmethod
    def denoiser(self, net: Callable[[Tensor, Tensor, Cond], Tensor], cond: Cond, remember: bool = True) -> Denoise:
        """The network under one condition as a Denoise.

        One that is self-conditioned is told its newest x0, if that has the same shape, unless `remember` is false: the
        answer is then a function of (x_t, t) alone, as a likelihood needs it.
        """

    @abstractmethod
    def check_net(self, in_channels: int, out_channels: int) -> None:
        """Raise ValueError where a network with these channels cannot be trained like this."""


class Diffusion(Process):
    """Everything of a diffusion model that is not the network. It draws no random numbers.

    It has weights only where one of its parts learns: a learned schedule, say, or a learned uncertainty.

    Args:
        path: How data turn into noise: x_t = alpha(t) x0 + sigma(t) eps.
        prediction: What the network's output means.
        weighting: Weight of the error by noise level; left out, Uniform.
        timesteps: Which times are trained how often; left out, UniformTimesteps.
        error: How the distance of output and target is measured; left out, MSE.
        objective: What is trained; left out, Simple: the weighted error.

    Raises:
        ValueError: two of the parts have no meaning together.
    """

    def __init__(
        self,
        path: NoisePath,
        prediction: Prediction,
        weighting: Weighting | None = None,
        timesteps: Timesteps | None = None,
        error: Error | None = None,
        objective: Objective | None = None,
    ) -> None:
        super().__init__()
        self._known: dict[tuple[float, int, torch.dtype, torch.device], tuple[Tensor, Tensor, float]] = {}
        self.path: NoisePath = path
        self.prediction = prediction
        self.weighting = Uniform() if weighting is None else weighting
        self.timesteps = UniformTimesteps() if timesteps is None else timesteps
        self.error = MSE() if error is None else error
        self.objective = Simple() if objective is None else objective
        self.prediction.check(path)
        self.weighting.check(path, prediction)
        self.timesteps.check(path)
        self.error.check(prediction)
        self.objective.check(self)

    def loss(
        self, net: Callable[[Tensor, Tensor, Cond], Tensor], x0: Tensor, t: Tensor, eps: Tensor, cond: Cond
    ) -> Tensor:
        x_t = self.path.corrupt(x0, eps, t)
        if wants_estimate(net):
            cond = with_first_look(lambda told: self.denoiser(net, told, remember=False), x_t, t, cond)
        output, variance = split_variance(net(self.path.net_input(x_t, t), self.heard(t, x0), cond), x0.shape[1])
        losses = self.objective(self, Example(x0, eps, t, x_t), output, variance)
        if self.objective.is_bound or self.timesteps.corrected:
            losses = losses / self.timesteps.density(t, self.path)
        return losses

    def check_net(self, in_channels: int, out_channels: int) -> None:
        learns, has = self.objective.needs_variance, out_channels == 2 * in_channels
        if has and not learns:
            where = (
                "" if self.path.num_steps else f" and a discrete path such as Linear, not {type(self.path).__name__}"
            )
            raise ValueError(
                f"The net has learned-variance channels and the objective {type(self.objective).__name__} does not "
                f"train them: set learned_variance to false, or use the objective Hybrid{where}."
            )
        if learns and not has:
            raise ValueError(
                f"The objective {type(self.objective).__name__} trains a learned variance and the net has no channels "
                "for it: set the net's learned_variance to true, or use another objective."
            )
        if self.path.learns and not self.objective.trains_path:
            raise ValueError(
                f"The path {type(self.path).__name__} learns from the spread of a bound's estimate, and the objective "
                f"{type(self.objective).__name__} does not train it: use the objective ContinuousBound, or a path that "
                "does not learn, such as Cosine."
            )

    def denoiser(self, net: Callable[[Tensor, Tensor, Cond], Tensor], cond: Cond, remember: bool = True) -> Denoise:
        if remember and wants_estimate(net):
            return remembering(lambda told: self.denoiser(net, told, remember=False), cond)

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            heard, a, b = self._one_time(t, x_t) if t.dim() == 0 else self._many_times(t.to(x_t.device), x_t)
            output = net(self.path.net_input(x_t, t), heard, cond)
            output, variance = split_variance(output, x_t.shape[1])
            if output.dtype != x_t.dtype:
                output = output.to(x_t.dtype)
            if isinstance(b, float):
                return Denoised((x_t * a).add_(output, alpha=b), variance)
            return Denoised(torch.addcmul(a * x_t, b, output), variance)

        return denoise

    def _many_times(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the network hears (B,) and a, b of x0 = a x_t + b output, for t (B,)."""
        a, b = self.prediction.x0_coefficients(t, self.path)
        return self.heard(t, x), per_sample(a, x), per_sample(b, x)

    def _one_time(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, float]:
        """The same for 0-dim t, which samplers ask for batch after batch: computed once, unless the path learns."""
        key = (float(t), x.shape[0], x.dtype, x.device)
        found = self._known.get(key)
        if found is None:
            with torch.inference_mode(False), torch.no_grad():  # to be kept, so of no use to inference alone
                a, b = self.prediction.x0_coefficients(t, self.path)
                found = self.heard(t, x).to(x.device).expand(x.shape[0]), a.to("cpu", x.dtype), float(b)
            if not self.path.learns:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[key] = found
        return found


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
