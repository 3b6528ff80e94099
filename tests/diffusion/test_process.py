import pytest
import torch
from diffusion_cases import PAIRS, PATHS, TIMESTEPS, WEIGHTINGS, inner_times, name, normal, pair_name
from torch import Tensor, nn

from ldm.diffusion import Diffusion
from ldm.diffusion.paths import Cosine, Linear, RectifiedFlow
from ldm.diffusion.predictions import X0, Eps, V
from ldm.diffusion.timesteps import LogitNormal, UniformTimesteps
from ldm.diffusion.weightings import MinSNR, Uniform


def batch(path, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    t = inner_times(path, 9)
    return normal(9, 4, 2, 2, seed=1).to(dtype), path.snap(t).to(dtype), normal(9, 4, 2, 2, seed=2).to(dtype)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_the_exact_target_costs_nothing(pair, weighting):
    path, prediction = pair
    x0, t, eps = batch(path)
    diffusion = Diffusion(path, prediction, weighting)
    losses = diffusion.loss(lambda x_t, c, cond: prediction.target(x0, eps, t, path), x0, t, eps, None)
    assert torch.equal(losses, torch.zeros(9, dtype=torch.float64))


def test_loss_is_the_weighted_mean_square_per_sample():
    x0, t, eps = batch(Linear(), torch.float32)
    losses = Diffusion(Linear(), V(), MinSNR()).loss(lambda x_t, c, cond: torch.zeros_like(x_t), x0, t, eps, None)
    target = V().target(x0, eps, t, Linear())
    expected = MinSNR()(t, Linear(), V()) * target.square().mean((1, 2, 3))
    torch.testing.assert_close(losses, expected)
    assert losses.dtype == torch.float32
    assert losses.shape == (9,)


@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_min_snr_loss_is_the_same_whatever_is_predicted(pair):
    # Networks with one and the same x0 estimate: a weight on the error of x0 must not see the difference.
    path, prediction = pair
    x0, t, eps = batch(path)
    guess = x0 + 0.1 * normal(9, 4, 2, 2, seed=3)

    def net(x_t: Tensor, heard: Tensor, cond: None) -> Tensor:
        return prediction.from_x0(guess, path.corrupt(x0, eps, t), t, path)

    snr = path.logsnr(t).exp().clamp(max=5)
    expected = snr * (guess - x0).square().flatten(1).mean(1)
    torch.testing.assert_close(Diffusion(path, prediction, MinSNR()).loss(net, x0, t, eps, None), expected)


@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_the_denoiser_of_a_perfect_network_finds_x0(pair):
    path, prediction = pair
    x0, t, eps = batch(path)

    def net(x_t: Tensor, heard: Tensor, cond: str) -> Tensor:
        assert cond == "a cat"
        return prediction.target(x0, eps, t, path)

    denoised = Diffusion(path, prediction).denoiser(net, "a cat")(path.corrupt(x0, eps, t), t)
    torch.testing.assert_close(denoised.x0, x0, rtol=0, atol=1e-9)
    assert denoised.variance is None


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_the_network_hears_the_same_in_training_and_in_sampling(path):
    x0, t, eps = batch(path)
    heard: list[Tensor] = []

    def net(x_t: Tensor, condition: Tensor, cond: None) -> Tensor:
        heard.append(condition)
        return x_t

    diffusion = Diffusion(path, X0())
    diffusion.loss(net, x0, t, eps, None)
    diffusion.denoiser(net, None)(x0, t)
    diffusion.denoiser(net, None)(x0, t[3])  # 0-dim: one time for the batch
    assert [c.dtype for c in heard] == [torch.float64] * 3
    assert [c.shape for c in heard] == [(9,)] * 3
    assert torch.equal(heard[0], heard[1])
    assert torch.equal(heard[2], heard[0][3].expand(9))


def test_learned_variance_is_split_off():
    path, raw = Linear(), normal(9, 4, 2, 2, seed=7)
    x0, t, eps = batch(path)
    diffusion = Diffusion(path, Eps())

    def net(x_t: Tensor, heard: Tensor, cond: None) -> Tensor:
        return torch.cat([eps, raw], 1)

    denoised = diffusion.denoiser(net, None)(path.corrupt(x0, eps, t), t)
    torch.testing.assert_close(denoised.x0, x0, rtol=0, atol=1e-9)
    assert torch.equal(denoised.variance, raw)
    assert torch.equal(diffusion.loss(net, x0, t, eps, None), torch.zeros(9, dtype=torch.float64))


def test_any_other_number_of_channels_is_refused():
    x0, t, eps = batch(Linear())
    diffusion = Diffusion(Linear(), Eps())
    with pytest.raises(ValueError, match="returned 3 channels for data of 4; build it to return 4, or 8"):
        diffusion.loss(lambda x_t, c, cond: x_t[:, :3], x0, t, eps, None)


def test_half_precision_networks_leave_x0_in_full_precision():
    x0, t, eps = batch(Linear(), torch.float32)
    diffusion = Diffusion(Linear(), Eps())

    def net(x_t: Tensor, heard: Tensor, cond: None) -> Tensor:
        return eps.bfloat16()

    assert diffusion.denoiser(net, None)(x0, t).x0.dtype == torch.float32
    assert diffusion.loss(net, x0, t, eps, None).dtype == torch.float32


@pytest.mark.parametrize("timesteps", TIMESTEPS, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_times_are_snapped(path, timesteps):
    u = torch.rand(64, generator=torch.Generator().manual_seed(0))
    times = Diffusion(path, X0(), timesteps=timesteps).times(u)
    assert torch.equal(times, path.snap(timesteps.quantile(timesteps.spread(u), path)))
    assert torch.equal(path.snap(times), times)


def test_defaults_and_no_weights():
    diffusion = Diffusion(Cosine(), V())
    assert isinstance(diffusion, nn.Module)
    assert isinstance(diffusion.weighting, Uniform)
    assert isinstance(diffusion.timesteps, UniformTimesteps)
    assert diffusion.state_dict() == {}


def test_a_pair_without_meaning_is_refused_at_the_door():
    with pytest.raises(ValueError, match="Eps has no meaning on RectifiedFlow"):
        Diffusion(RectifiedFlow(), Eps(), timesteps=LogitNormal())
