"""The variational bound of infinitely many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ldm.diffusion.errors import MSE
from ldm.diffusion.objectives.base import Example, Objective
from ldm.diffusion.objectives.variational_bound import refuse_weights
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.timesteps import Stratified, UniformTimesteps

if TYPE_CHECKING:
    from ldm.diffusion.process import Diffusion


class ContinuousBound(Objective):
    """-1/2 (d snr / dt) |x0 - x0_hat|^2 (Kingma et al. 2021, arXiv 2107.00630, section 4.2), times t_max - t_min.

    Equally 1/2 (-d logsnr / dt) |eps - eps_hat|^2. In nats per dimension (the paper sums over dimensions), so that the
    mean over uniform times is the diffusion term of the bound; the prior and the reconstruction term do not depend on
    the network. The schedule does not change this mean (section 5.1), only the spread of its estimate; a path that
    learns is trained to make the latter small (section 5.1), and the network sees the plain bound.
    """

    is_bound = True
    trains_path = True

    def __call__(self, diffusion: Diffusion, example: Example, output: Tensor, variance: Tensor | None) -> Tensor:
        path, prediction, t = diffusion.path, diffusion.prediction, example.t
        # The error of the output and not of x0, which is a difference of nearly equal numbers at little noise.
        error = MSE()(output, prediction.target(example.x0, example.eps, t, path))
        losses = -snr_dot(path, t) / (2 * prediction.error_ratio(t, path)) * error * (path.t_max - path.t_min)
        if not path.learns:
            return losses
        # The mean square of the losses is their variance but for a constant. With losses = |d logsnr / dt| h(logsnr)
        # it is the integral of |d logsnr / dt| h^2 over logsnr, so at each noise level it follows the slope there.
        spread = losses.detach().square() * path.relative_slope(t)
        return losses + (spread - spread.detach())

    def check(self, diffusion: Diffusion) -> None:
        if diffusion.path.num_steps is not None:
            raise ValueError(
                f"The objective ContinuousBound is an integral over time, and {type(diffusion.path).__name__} has "
                "discrete steps: use the objective VariationalBound, or a continuous path such as Cosine."
            )
        refuse_weights(self, diffusion)
        law = diffusion.timesteps
        plain = law.timesteps if isinstance(law, Stratified) else law
        if diffusion.path.learns and not isinstance(plain, UniformTimesteps):
            raise ValueError(
                f"{type(diffusion.path).__name__} learns from the spread of the bound under uniform times, and the "
                f"timesteps {type(plain).__name__} draw others: use UniformTimesteps or Stratified."
            )


def snr_dot(path: NoisePath, t: Tensor) -> Tensor:
    """d (alpha^2 / sigma^2) / dt, 0 or less; finite where alpha is 0."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return 2 * alpha / sigma.square() * (path.alpha_dot(t) - alpha * path.sigma_dot(t) / sigma)
