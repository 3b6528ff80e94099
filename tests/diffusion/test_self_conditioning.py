"""Networks that are told what they last thought of x0. Chen et al. 2022 (arXiv:2208.04202)."""

import pytest
import torch
from diffusion_cases import PAIRS, inner_times, normal, pair_name
from torch import Tensor, nn

from ldm.diffusion import Diffusion
from ldm.diffusion.paths import Cosine
from ldm.diffusion.predictions import V
from ldm.diffusion.samplers import DDIM
from ldm.networks import Conditioning


class Echo(nn.Module):
    """output = weight * x_t + 0.5 * estimate + vector; writes down what it is told."""

    def __init__(self, self_conditioning: bool = True) -> None:
        super().__init__()
        self.self_conditioning = self_conditioning
        self.weight = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.told: list[Tensor | None] = []

    def forward(self, x_t: Tensor, heard: Tensor, cond: Conditioning) -> Tensor:
        self.told.append(cond.estimate)
        estimate = torch.zeros_like(x_t) if cond.estimate is None else cond.estimate
        assert cond.vector is not None
        return self.weight * x_t + 0.5 * estimate + cond.vector[:, :, None, None]


def batch(path, count=5):
    x0, eps = (normal(count, 2, 3, 3, seed=seed).double() for seed in (1, 2))
    return x0, path.snap(inner_times(path, count)), eps, Conditioning(vector=normal(count, 2, seed=3).double())


@pytest.mark.parametrize("pair", PAIRS[::7], ids=pair_name)
def test_every_second_row_is_trained_with_the_estimate_of_a_first_look(pair):
    path, prediction = pair
    net, diffusion = Echo(), Diffusion(path, prediction)
    x0, t, eps, cond = batch(path)
    x_t = path.corrupt(x0, eps, t)
    losses = diffusion.loss(net, x0, t, eps, cond)

    first = Echo(self_conditioning=False)(path.net_input(x_t, t), t, cond).detach()
    estimate = prediction.to_x0(first, x_t, t, path)
    estimate[1::2] = 0
    torch.testing.assert_close(net.told[-1], estimate)
    expected = Diffusion(path, prediction).loss(Echo(self_conditioning=False), x0, t, eps, cond.with_estimate(estimate))
    torch.testing.assert_close(losses, expected)
    assert [None if told is None else len(told) for told in net.told] == [None, 5]


def test_the_first_look_gets_no_gradient():
    x0, t, eps, cond = batch(Cosine())
    net, plain = Echo(), Echo(self_conditioning=False)
    diffusion = Diffusion(Cosine(), V())
    diffusion.loss(net, x0, t, eps, cond).sum().backward()
    diffusion.loss(plain, x0, t, eps, cond.with_estimate(net.told[-1])).sum().backward()
    torch.testing.assert_close(net.weight.grad, plain.weight.grad)


def test_autocast_loses_no_gradient_to_the_first_look():
    class Small(nn.Conv2d):
        self_conditioning = True

        def forward(self, x_t, heard, cond):
            return super().forward(x_t)

    net = Small(2, 2, 1)
    x0, t, eps, cond = batch(Cosine())
    with torch.autocast("cpu", torch.bfloat16):
        losses = Diffusion(Cosine(), V()).loss(net, x0.float(), t.float(), eps.float(), cond)
    losses.sum().backward()
    assert net.weight.grad is not None


def test_another_network_is_asked_once_and_told_nothing():
    net = Echo(self_conditioning=False)
    x0, t, eps, cond = batch(Cosine())
    diffusion = Diffusion(Cosine(), V())
    diffusion.loss(net, x0, t, eps, cond)
    denoise = diffusion.denoiser(net, cond)
    denoise(x0, t)
    denoise(x0, t)
    assert net.told == [None] * 3


def test_a_sampler_hands_each_estimate_on():
    net, path = Echo(), Cosine()
    denoise = Diffusion(path, V()).denoiser(net, batch(path)[-1])
    answers = [step.x0 for step in DDIM(4).steps(denoise, path, batch(path)[2], lambda: None)]
    assert net.told[0] is None
    assert len(net.told) == 4
    for told, answer in zip(net.told[1:], answers, strict=False):
        assert torch.equal(told, answer)


def test_an_estimate_of_another_shape_is_forgotten_and_so_is_all_of_it_where_asked():
    net, (x0, t, _, cond) = Echo(), batch(Cosine())
    diffusion = Diffusion(Cosine(), V())
    denoise = diffusion.denoiser(net, cond)
    denoise(x0, t)
    denoise(x0[..., :2], t)
    alone = diffusion.denoiser(net, cond, remember=False)
    alone(x0, t)
    alone(x0, t)
    assert net.told == [None] * 4
