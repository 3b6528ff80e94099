"""The weighted error of the network's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ldm.diffusion.objectives.base import Example, Objective

if TYPE_CHECKING:
    from ldm.diffusion.process import Diffusion


class Simple(Objective):
    """weighting(t) * error(output, target): L_simple (Ho et al. 2020, arXiv 2006.11239, eq. 14) and its kin.

    A learned variance, if the network has one, is not trained by it.
    """

    def __call__(self, diffusion: Diffusion, example: Example, output: Tensor, variance: Tensor | None) -> Tensor:
        path, t = diffusion.path, example.t
        target = diffusion.prediction.target(example.x0, example.eps, t, path)
        return diffusion.weighting(t, path, diffusion.prediction) * diffusion.error(output, target)
