"""A convolution whose weights are standardised."""

from torch import Tensor, nn


class StandardConv2d(nn.Conv2d):
    """The kernel of each channel out is brought to mean 0 and variance 1 / its size before use.

    Weight standardisation, Qiao et al. 2019 (arXiv:1903.10520); made for group norms. The variance is that of a usual
    initialisation, so that a signal passes about as large as it comes.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.flatten(1).float()
        weight = weight - weight.mean(1, keepdim=True)
        weight = weight * (weight.square().sum(1, keepdim=True) + 1e-5).rsqrt()
        return self._conv_forward(x, weight.view_as(self.weight).to(self.weight.dtype), self.bias)
