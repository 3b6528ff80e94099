"""Cold diffusion: the gradual undoing of a degradation that is not noise."""

from collections.abc import Callable

from torch import Tensor

from ldm.diffusion.degradations import Degradation
from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.process import Cond, Process
from ldm.diffusion.timesteps import Timesteps, UniformTimesteps


class ColdDiffusion(Process):
    """Trains the network to restore x0 from D(x0, t): mean |net(D(x0, t), t) - x0| (arXiv 2208.09392, section 3.1).

    Sample from it with the sampler Cold.

    Args:
        path: The degradation D.
        timesteps: Which times are trained how often; left out, UniformTimesteps.

    Raises:
        ValueError: the timesteps have no meaning without noise.
    """

    def __init__(self, path: Degradation, timesteps: Timesteps | None = None) -> None:
        super().__init__()
        self.path: Degradation = path
        self.timesteps = UniformTimesteps() if timesteps is None else timesteps
        self.timesteps.check(path)

    def loss(
        self, net: Callable[[Tensor, Tensor, Cond], Tensor], x0: Tensor, t: Tensor, eps: Tensor, cond: Cond
    ) -> Tensor:
        x_t = self.path.corrupt(x0, eps, t)
        restored = net(self.path.net_input(x_t, t), self.heard(t, x0), cond)
        losses = (restored - x0).abs().flatten(1).mean(1)
        return losses / self.timesteps.density(t, self.path) if self.timesteps.corrected else losses

    def denoiser(self, net: Callable[[Tensor, Tensor, Cond], Tensor], cond: Cond, remember: bool = True) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            t = t.to(x_t.device).expand(x_t.shape[0])
            return Denoised(net(self.path.net_input(x_t, t), self.heard(t, x_t), cond).to(x_t.dtype))

        return denoise

    def check_net(self, in_channels: int, out_channels: int) -> None:
        if out_channels != in_channels:
            raise ValueError(
                f"ColdDiffusion restores images and the net returns {out_channels} channels for {in_channels}: a "
                "degradation has no variance to learn, so set the net's learned_variance to false."
            )
