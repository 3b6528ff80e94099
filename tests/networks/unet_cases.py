"""Small U-Nets and what they are asked, for the tests of the network and of its layouts."""

import torch
from torch import nn

from ldm.networks import Conditioning, UNet
from ldm.networks.unet_parts import ConvNeXt, Linear, Residual, Transformers

KINDS = {
    "transformers": {"context_width": 6, "attention": Transformers(num_heads=2)},
    "self-attention": {"attention": Transformers(head_width=4, depth=[1, 2], linear_projections=True)},
    "adm": {"block": Residual(scale_shift=True), "resample": "residual", "attention": Transformers(num_heads=2)},
    "annotated": {"block": ConvNeXt(), "attention": Linear(2, 4)},
    "lucid": {"block": Residual(True, standardised=True), "attention": Linear(2, 4), "self_conditioning": True},
}


def tiny(**options):
    torch.manual_seed(0)
    sizes = {"input_size": 4, "in_channels": 2, "channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1}
    return UNet(**{**sizes, "attention_levels": (0, 1), **options})


def awake(**options):
    """A net with random weights everywhere, also where training starts from zero."""
    return woken(tiny(**options))


def woken(net):
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def asked(net, batch=2, length=3, size=None):
    """x_t, the noise level and all that `net` hears."""
    generator = torch.Generator().manual_seed(1)
    channels, *grid = net.sample_shape
    grid = grid if size is None else size
    x = torch.randn(batch, channels, *grid, generator=generator)
    tokens = None if net.context_width is None else torch.randn(batch, length, net.context_width, generator=generator)
    concat = torch.randn(batch, net.concat_channels, *grid, generator=generator) if net.concat_channels else None
    estimate = torch.randn(x.shape, generator=generator) if net.self_conditioning else None
    vector = torch.randn(batch, net.width, generator=generator)
    cond = Conditioning(vector=vector, tokens=tokens, concat=concat, estimate=estimate)
    return x, torch.rand(batch, generator=generator) * 999, cond
