"""The loss of cold diffusion and its two algorithms (arXiv 2208.09392)."""

import math
from dataclasses import replace

import pytest
import torch
from diffusion_cases import SPACINGS, TIMESTEPS, forbidden_noise, name, normal
from made_runs import diffusion_task
from test_degradations import DEGRADATIONS, X0, every_degradation, time
from torch import Tensor, nn

from ldm.diffusion import ColdDiffusion, Denoised
from ldm.diffusion.degradations import Blur, Degradation, Fade, Pixelation
from ldm.diffusion.guidance import CFGPlusPlus, ClassifierFree
from ldm.diffusion.paths import Cosine
from ldm.diffusion.samplers import DDIM, Cold
from ldm.diffusion.spacings import Spacing
from ldm.diffusion.timesteps import LogitNormal
from ldm.errors import UserError
from ldm.sampling import Request, check_request, sample_images

both_algorithms = pytest.mark.parametrize("improved", [True, False], ids=["algorithm 2", "algorithm 1"])


class Ramp(Degradation):
    """D(x0, t) = x0 + t e, the degradation of the paper's section 3.3."""

    def __init__(self, num_steps: int = 10) -> None:
        super().__init__(num_steps, start_mean=0.0, start_std=0.0, start_noise=0.0)
        self.e = 5 * normal(2, 16, 16, seed=7)

    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        return x0 + t[:, None, None, None] * self.e.to(x0)


def suits(spacing: Spacing, path: Degradation) -> bool:
    try:
        Cold(4, spacing=spacing).check(path)
    except ValueError:
        return False
    return True


def walk(path, restore, x, num_steps, improved, spacing=None):
    """Where the sampler gets to from x at t = 1 with a restoration (x_t, t) -> x0."""
    sampler = Cold(num_steps, improved, spacing)
    sampler.check(path)
    steps = list(sampler.steps(lambda x_t, t: Denoised(restore(x_t, t)), path, x, forbidden_noise))
    assert [step.index for step in steps] == list(range(num_steps))
    assert steps[-1].t == 0
    return steps[-1].x


@both_algorithms
@pytest.mark.parametrize("path", [*DEGRADATIONS, Ramp()], ids=name)
def test_a_perfect_restoration_gives_the_image_back(path, improved):
    x = walk(path, lambda x_t, t: X0, path.at(X0, time(1)), min(path.num_steps, 7), improved)
    torch.testing.assert_close(x, X0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spacing", [spacing for spacing in SPACINGS if suits(spacing, Ramp())], ids=name)
def test_algorithm_2_forgives_every_restoration_of_a_linear_degradation(spacing):
    """Section 3.3: with D(x, t) = x + t e the x0 cancel. Algorithm 1 gives the restoration's error out as it is."""
    path = Ramp()

    def wrong(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(3 * x_t) - 1

    # what is taken away is the e of the times visited: all of it, if they begin at t = 1
    visited = float(spacing.grid(4, path)[0])
    start = path.at(X0, time(visited))
    torch.testing.assert_close(walk(path, wrong, start, 4, True, spacing), X0, rtol=0, atol=1e-12)
    assert float((walk(path, wrong, start, 4, False, spacing) - X0).abs().mean()) > 0.5


@pytest.mark.parametrize("path", [Blur(), Pixelation()], ids=name)
def test_algorithm_2_forgives_what_the_degradation_leaves_alone(path):
    """A wrong colour, another one at each step: neither blur nor pixelation changes it, so it cancels in each step."""

    def tinted(x_t: Tensor, t: Tensor) -> Tensor:
        return X0 + torch.sin(20 * t)

    start = path.at(X0, time(1))
    torch.testing.assert_close(walk(path, tinted, start, path.num_steps, True), X0, rtol=0, atol=1e-12)
    naive = walk(path, tinted, start, path.num_steps, False)
    torch.testing.assert_close(naive, X0 + math.sin(20 * path.t_min), rtol=0, atol=1e-12)


@every_degradation
def test_errors_of_algorithm_2_add_up_by_what_they_change_in_a_step(path):
    """D(x, t) = A_t x + b_t: restoration errors r_t leave sum (A_s - A_t) r_t, a telescope where r is constant."""
    error = normal(*X0.shape, seed=2)

    def biased(x_t: Tensor, t: Tensor) -> Tensor:
        return X0 + error

    x = walk(path, biased, path.at(X0, time(1)), path.num_steps, True)
    lost = error - (path.at(X0 + error, time(1)) - path.at(X0, time(1)))
    torch.testing.assert_close(x, X0 + lost, rtol=0, atol=1e-12)


@every_degradation
def test_the_loss_is_the_mean_absolute_error_of_the_restored_image(path):
    process = ColdDiffusion(path)
    t = process.times(torch.tensor([0.1, 0.5, 0.99]))
    off = torch.tensor([0.5, -2.0, 0.0], dtype=torch.float64)
    heard: list[Tensor] = []

    def net(x_t: Tensor, condition: Tensor, cond: Tensor) -> Tensor:
        heard.append(condition)
        torch.testing.assert_close(x_t, path.at(X0, t))
        return X0 + cond[:, None, None, None]

    assert torch.equal(process.loss(net, X0, t, normal(*X0.shape), torch.zeros_like(off)), torch.zeros(3).double())
    torch.testing.assert_close(process.loss(net, X0, t, normal(*X0.shape), off), off.abs())
    torch.testing.assert_close(heard[0], path.noise_condition(t).double())


@every_degradation
def test_gradients_reach_the_net_and_the_image(path):
    net = nn.Conv2d(2, 2, 3, padding=1).double()
    x0 = X0.clone().requires_grad_()
    times = torch.tensor([path.t_min, 0.5, 1.0], dtype=torch.float64)
    ColdDiffusion(path).loss(lambda x_t, heard, cond: net(x_t), x0, times, X0, None).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [x0, *net.parameters()])


@pytest.mark.parametrize("timesteps", TIMESTEPS, ids=name)
def test_every_law_of_times_fits_or_says_why_not(timesteps):
    path = Blur()
    try:
        process = ColdDiffusion(path, timesteps)
    except ValueError as error:
        assert len(str(error)) > 20  # noqa: PT017 (either outcome is right)
        return
    times = process.times(torch.linspace(0.01, 0.99, 50))
    assert ((times * 40 - (times * 40).round()).abs() < 1e-4).all()
    assert times.min() >= path.t_min - 1e-6
    assert times.max() <= 1


def test_the_denoiser_asks_the_net_at_one_time_or_at_many():
    process = ColdDiffusion(Blur())
    denoise = process.denoiser(lambda x_t, heard, cond: x_t * heard[:, None, None, None] + cond, 2.0)
    one = denoise(X0, time(0.5))
    assert torch.equal(one.x0, X0 * 500 + 2)
    assert one.variance is None
    assert torch.equal(denoise(X0, torch.full((3,), 0.5).double()).x0, one.x0)


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="use the sampler Cold"):
        DDIM(10).check(Blur())
    with pytest.raises(ValueError, match="use DDIM"):
        Cold(10).check(Cosine())
    with pytest.raises(ValueError, match="choose at most 4"):
        Cold(5).check(Pixelation(num_steps=4))
    with pytest.raises(ValueError, match="learned_variance to false"):
        ColdDiffusion(Blur()).check_net(3, 6)
    ColdDiffusion(Blur(), LogitNormal()).check_net(3, 3)
    with pytest.raises(ValueError, match="fewer steps"):
        Pixelation(num_steps=4).at(normal(1, 1, 24, 24), time(1))
    with pytest.raises(ValueError, match="images"):
        Blur().at(normal(4, 2), time(1))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Blur, {"num_steps": 0}),
        (Blur, {"max_std": 0.0}),
        (Blur, {"growth": -1.0}),
        (Blur, {"start_std": [0.1, -0.1]}),
        (Pixelation, {"start_noise": -0.1}),
        (Pixelation, {"num_steps": 0}),
        (Fade, {"max_width": 0.0}),
    ],
)
def test_options_out_of_range_are_refused(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)


def test_a_trained_model_is_sampled_like_any_other():
    task = diffusion_task()
    task.diffusion = ColdDiffusion(Blur(num_steps=8, start_noise=0.1))
    request = Request([7, 8], {"labels": [1, 2]}, [ClassifierFree(2.0)])
    check_request(task, request)
    together, alone = (sample_images(task, part, Cold(4)) for part in (request, request.pick([1])))
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1 / 255)
    assert not torch.equal(sample_images(task, replace(request, guidance=[]), Cold(4)), together)
    assert not torch.equal(sample_images(task, request, Cold(4, improved=False)), together)


def test_rules_that_are_made_for_noise_are_refused_on_a_degradation():
    cold, noisy = diffusion_task(), diffusion_task()
    cold.diffusion = ColdDiffusion(Blur())
    request = Request([7], {"labels": [1]}, [CFGPlusPlus(0.6)])
    check_request(noisy, request)
    with pytest.raises(UserError, match="CFGPlusPlus is made for Gaussian noise, and the model's Blur adds none"):
        check_request(cold, request)
