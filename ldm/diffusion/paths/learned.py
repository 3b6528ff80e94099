"""A schedule of noise that is learned along with the network."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from ldm.diffusion.paths.base import NoisePath


class LearnedSchedule(nn.Module, NoisePath):
    """logsnr falls from logsnr_max at t_min to logsnr_min at t = 1 along a learned curve, alpha^2 + sigma^2 = 1.

    The monotone network of variational diffusion models (Kingma et al. 2021, arXiv 2107.00630, appendix on the
    learned schedule): three layers of positive weights, normalised to the two ends, which stay fixed. Below t_min,
    where nothing is trained, sigma / alpha is proportional to t. The objective ContinuousBound trains it, through
    `relative_slope`; all other functions are detached from its weights. It starts as a straight line.

    Args:
        logsnr_max: Log signal-to-noise ratio at t_min.
        logsnr_min: The same at t = 1, under logsnr_max.
        width: Units of the middle layer, at least 1; the paper has 1024 of them.
    """

    t_min = 1e-3
    t_max = 1.0
    learns = True

    def __init__(self, logsnr_max: float = 13.3, logsnr_min: float = -5.0, width: int = 32) -> None:
        super().__init__()
        if not -torch.inf < logsnr_min < logsnr_max < torch.inf:
            raise ValueError(
                f"logsnr_max={logsnr_max} and logsnr_min={logsnr_min} make no noise path; choose "
                "logsnr_min < logsnr_max (-5 and 13.3 are usual)."
            )
        if width < 1:
            raise ValueError(f"width={width} leaves the schedule nothing to learn; choose at least 1.")
        self.logsnr_max, self.logsnr_min, self.width = logsnr_max, logsnr_min, width
        # The sigmoids stand side by side over [0, 1], so that their sum is nearly straight at first.
        centres = (torch.arange(width) + 0.5) / width
        steep = max(width / 2, 2.0)
        self.first = nn.Parameter(_raw(torch.ones(())))
        self.second = nn.Parameter(_raw(torch.full((width,), steep)))
        self.bias = nn.Parameter(-steep * centres)
        self.third = nn.Parameter(_raw(torch.full((width,), 1 / width)))

    def alpha(self, t: Tensor) -> Tensor:
        return (logsigmoid(-self._gamma(t)) / 2).exp().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (logsigmoid(self._gamma(t)) / 2).exp().to(t.dtype)

    def alpha_dot(self, t: Tensor) -> Tensor:
        t = t.clamp(min=1e-9)  # the limit at 0
        gamma = self._gamma(t)
        return (-self._gamma_dot(t) / 2 * gamma.sigmoid() * (logsigmoid(-gamma) / 2).exp()).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        t = t.clamp(min=1e-9)
        gamma = self._gamma(t)
        return (self._gamma_dot(t) / 2 * (-gamma).sigmoid() * (logsigmoid(gamma) / 2).exp()).to(t.dtype)

    def logsnr(self, t: Tensor) -> Tensor:
        return -self._gamma(t).to(t.dtype)

    def logsnr_dot(self, t: Tensor) -> Tensor:
        return -self._gamma_dot(t).to(t.dtype)

    def t_from_logsnr(self, logsnr: Tensor) -> Tensor:
        gamma = -_exact(logsnr)
        below = self.t_min * ((gamma + self.logsnr_max) / 2).clamp(max=0).exp()
        low, high = torch.full_like(gamma, self.t_min), torch.ones_like(gamma)
        with torch.no_grad():
            for _ in range(53):  # halves [t_min, 1] down to the last bit
                middle = (low + high) / 2
                over = self._gamma(middle) >= gamma
                low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        return torch.where(gamma < -self.logsnr_max, below, high).to(logsnr.dtype)

    def noise_condition(self, t: Tensor) -> Tensor:
        """How far down logsnr is between its ends, from 0 to 1000: a function of the noise level alone."""
        share = (self._gamma(t) + self.logsnr_max) / (self.logsnr_max - self.logsnr_min)
        return (1000 * share.clamp(min=0)).to(t.dtype)

    def relative_slope(self, t: Tensor) -> Tensor:
        at = self._trained(_exact(t))
        gamma, slope = self._network(at, self._weights(at))
        # One step of Newton's back to the level that t stood for: the value is t, the gradient holds the level.
        at = at - (gamma - gamma.detach()) / slope.detach()
        return (self._network(at, self._weights(at))[1] / slope.detach()).to(t.dtype)

    def _gamma(self, t: Tensor) -> Tensor:
        """-logsnr, detached from the weights; float64 where the device has it."""
        t = _exact(t)
        gamma, _ = self._network(self._trained(t), self._weights(t, detached=True))
        return gamma + torch.where(t < self.t_min, 2 * (t.clamp(max=self.t_min) / self.t_min).log(), 0.0)

    def _gamma_dot(self, t: Tensor) -> Tensor:
        t = _exact(t)
        _, slope = self._network(self._trained(t), self._weights(t, detached=True))
        return torch.where(t < self.t_min, 2 / t, slope)

    def _trained(self, t: Tensor) -> Tensor:
        return torch.where(t < self.t_min, self.t_min, t)  # not clamp, whose slope at t_min is 0

    def _weights(self, like: Tensor, detached: bool = False) -> list[Tensor]:
        """The three layers' positive weights and the bias, where `like` is and in its dtype."""
        raw = [weight.to(like.device, like.dtype) for weight in (self.first, self.second, self.third, self.bias)]
        first, second, third, bias = (weight.detach() for weight in raw) if detached else raw
        return [softplus(first), softplus(second), softplus(third), bias]

    def _network(self, t: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """gamma and d gamma / dt at t >= t_min."""
        first, second, third, bias = weights

        def curve(h: Tensor) -> tuple[Tensor, Tensor]:
            bumps = (second * h[..., None] + bias).sigmoid()
            return h + (third * bumps).sum(-1), 1 + (third * second * bumps * (1 - bumps)).sum(-1)

        start, end = curve(torch.stack([torch.zeros_like(first), first]))[0]
        height, slope = curve(first * (t - self.t_min) / (1 - self.t_min))
        span = (self.logsnr_max - self.logsnr_min) / (end - start)
        return span * (height - start) - self.logsnr_max, span * slope * first / (1 - self.t_min)


def _exact(t: Tensor) -> Tensor:
    return t if t.device.type == "mps" else t.double()


def _raw(positive: Tensor) -> Tensor:
    """What softplus turns into `positive`."""
    return positive.expm1().log()
