"""Autoencoders in torch.channels_last: equal outputs and gradients, and no map inside that is turned back."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.autoencoders import KLAutoencoder


def small(resample: str) -> KLAutoencoder:
    torch.manual_seed(0)
    model = KLAutoencoder(
        channels=16, channel_multipliers=[1, 2, 2], num_res_blocks=1, attention_levels=[2], resample=resample
    )
    return model.eval()


def maps_that_turn(model: nn.Module) -> list[str]:
    """The modules whose output is no longer channels_last, filled while the model runs."""
    turned: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.is_contiguous(memory_format=torch.channels_last):
                turned.append(name)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(watch(name))
    return turned


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("resample", ["conv", "space_to_channel"])
def test_the_format_goes_through(resample: str, autocast: bool) -> None:
    model = small(resample).to(memory_format=torch.channels_last)
    turned = maps_that_turn(model)
    images = torch.randn(2, 3, 16, 24).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        latents = model.encode(images).mode
        decoded = model.decode(latents)
    for tensor in (latents, decoded):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert not turned


@pytest.mark.parametrize("resample", ["conv", "space_to_channel"])
def test_outputs_and_gradients_are_equal(resample: str) -> None:
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = small(resample).to(memory_format=memory_format)
        images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
        posterior = model.encode(images.contiguous(memory_format=memory_format))
        decoded = model.decode(posterior.mode)
        (decoded.square().mean() + posterior.kl().mean()).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append([posterior.mode.detach(), decoded.detach(), *gradients])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)
