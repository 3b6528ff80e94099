import math

import numpy as np
import pytest
import torch
from diffusion_cases import PATHS, TIMESTEPS, name
from torch import Tensor

from ldm.diffusion import Diffusion
from ldm.diffusion.paths import EDM, Cosine, Linear, Path, RectifiedFlow
from ldm.diffusion.predictions import V, Velocity
from ldm.diffusion.timesteps import (
    CosMap,
    LogitNormal,
    LogNormalSigma,
    LossAware,
    Mode,
    Stratified,
    Timesteps,
    UniformTimesteps,
)

PATHS_IN_TIME = pytest.mark.parametrize("path", PATHS, ids=name)


def taught(path: Path, bins: int = 4, uniform: float = 0.001, sizes: Tensor | None = None) -> LossAware:
    """A law that has seen losses of one size in each bin."""
    law = LossAware(bins, history=1, uniform=uniform)
    sizes = torch.arange(1.0, bins + 1) if sizes is None else sizes
    t = path.snap(path.from_uniform((torch.arange(bins, dtype=torch.float64) + 0.5) / bins))
    law.update(t, sizes, path)
    return law


LAWS: list[Timesteps] = [*TIMESTEPS, Mode(-0.7), Stratified(LogitNormal(-0.4)), taught(RectifiedFlow())]
LAW_IDS = [f"{name(law)}{i}" for i, law in enumerate(LAWS)]
every_law = pytest.mark.parametrize("timesteps", LAWS, ids=LAW_IDS)


@every_law
@PATHS_IN_TIME
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quantile_function(timesteps, path, dtype):
    timesteps.check(path)
    u = torch.linspace(0, 1, 1001, dtype=dtype)[:-1]
    t = timesteps.quantile(u, path)
    assert t.shape == u.shape
    assert t.dtype == dtype
    assert ((t >= 0) & (t <= 1)).all()
    assert (t.diff() >= 0).all()
    assert (path.snap(t) > 0).all()


@every_law
@PATHS_IN_TIME
def test_the_cdf_is_the_inverse(timesteps, path):
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(timesteps.cdf(timesteps.quantile(u, path), path), u, rtol=0, atol=1e-6)
    low = 0.0 if path.num_steps is not None else path.t_min
    ends = timesteps.cdf(torch.tensor([low, path.t_max], dtype=torch.float64), path)
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-9)


@every_law
@PATHS_IN_TIME
def test_the_density_is_that_of_the_draws(timesteps, path):
    # Importance weights: the mean of f(t) / density(t) over the law's times is the mean of f over uniform ones.
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    with torch.no_grad():
        t = path.snap(timesteps.quantile(u, path))
        density = timesteps.density(t, path)
    even, low, high = path.snap(path.from_uniform(u)), t[1000], t[-1000]  # away from tails with next to no draws
    weighed = ((low < t) & (t <= high)) * (3 * t).cos() / density
    expected = ((low < even) & (even <= high)) * (3 * even).cos()
    assert float(weighed.mean()) == pytest.approx(float(expected.mean()), abs=3e-3)


def test_uniform_is_uniform():
    u = torch.rand(8)
    assert torch.equal(UniformTimesteps().quantile(u, Linear()), u)
    torch.testing.assert_close(UniformTimesteps().quantile(u, RectifiedFlow()), 1e-3 + 0.999 * u)


def test_logit_normal_has_a_normal_logit():
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    logit = torch.logit(LogitNormal(mean=-0.4, std=1.2).quantile(u, RectifiedFlow()))
    assert float(logit.mean()) == pytest.approx(-0.4, abs=1e-3)
    assert float(logit.std()) == pytest.approx(1.2, abs=2e-3)
    below_one_std = (logit < -0.4 + 1.2).double().mean()
    assert float(below_one_std) == pytest.approx(0.5 * (1 + math.erf(0.5**0.5)), abs=1e-4)


@pytest.mark.parametrize("path", [Cosine(), Linear()], ids=name)
def test_log_normal_sigma_has_a_normal_noise_level(path):
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    level = -path.logsnr(LogNormalSigma(-0.9, 0.8).quantile(u, path)) / 2
    assert float(level.mean()) == pytest.approx(-0.9, abs=1e-3)
    assert float(level.std()) == pytest.approx(0.8, abs=2e-3)


def test_the_density_is_right_where_times_are_small():
    path, law = EDM(), LogNormalSigma(-1.2, 1.2)  # sigma = t sigma_max
    t = torch.tensor([path.t_min, 2 * path.t_min, 1e-3, 0.3], dtype=torch.float64)
    level = path.sigma(t).log()
    expected = (-((level + 1.2) ** 2) / (2 * 1.2**2)).exp() / (1.2 * math.sqrt(2 * math.pi) * t) * (1 - path.t_min)
    torch.testing.assert_close(law.density(t, path), expected, rtol=2e-3, atol=0)


def test_log_normal_sigma_is_logit_normal_on_the_straight_path():
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    one, other = LogNormalSigma(-0.4, 1.3), LogitNormal(-0.4, 1.3)
    torch.testing.assert_close(one.quantile(u, RectifiedFlow()), other.quantile(u, RectifiedFlow()))


def test_the_laws_of_stable_diffusion_3_in_its_own_terms():
    u = np.linspace(0.01, 0.99, 99)
    straight = Linear()  # a discrete path: no law is cut
    for scale in (-1.0, 0.0, 0.81, 1.29, 2 / (np.pi - 2)):
        paper = 1 - u - scale * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)  # falls with u; t = 1 is noise there too
        ours = Mode(scale).quantile(torch.tensor(1 - u), straight)
        np.testing.assert_allclose(ours.numpy(), paper, atol=1e-12)
    paper = 1 - 1 / (np.tan(np.pi / 2 * u) + 1)
    np.testing.assert_allclose(CosMap().quantile(torch.tensor(u), straight).numpy(), paper, atol=1e-12)
    t = torch.tensor(np.linspace(0.1, 0.9, 9))
    shape = 2 / (np.pi - 2 * np.pi * t.numpy() + 2 * np.pi * t.numpy() ** 2)
    law = CosMap().density(t, RectifiedFlow()).numpy()
    np.testing.assert_allclose(law / law[0], shape / shape[0], rtol=1e-6)


def test_the_cosine_map_gives_the_straight_path_the_noise_levels_of_the_cosine_path():
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    t = CosMap().quantile(u, Linear())  # not cut
    torch.testing.assert_close(RectifiedFlow().logsnr(t), -2 * (torch.pi / 2 * u).tan().log())


@pytest.mark.parametrize("law", [UniformTimesteps(), LogitNormal(), LossAware(8)], ids=name)
def test_stratified_times_are_one_for_each_equal_part(law):
    u = torch.rand(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    diffusion = Diffusion(RectifiedFlow(), Velocity(), timesteps=Stratified(law))
    shares = law.cdf(diffusion.times(u), RectifiedFlow())
    assert torch.equal((shares * 16 + 1e-9).long().sort().values, torch.arange(16))
    assert torch.allclose(shares * 16 % 1, u[0] * 16 % 1)
    assert Stratified(law).corrected == law.corrected
    assert Stratified(law).learns == law.learns


def test_stratified_times_have_less_variance():
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(100, 16, generator=generator, dtype=torch.float64)
    spread = torch.stack([Stratified().spread(row) for row in u])
    assert float((spread**2).mean(1).var()) < 0.1 * float((u**2).mean(1).var())


@pytest.mark.parametrize("path", [RectifiedFlow(), Linear(num_steps=40), Linear(num_steps=3)], ids=["RF", "40", "3"])
def test_loss_aware_draws_by_the_root_mean_square_of_the_losses(path):
    law = LossAware(bins=4, history=2, uniform=0.1)
    parts = 4 if path.num_steps is None else min(4, path.num_steps)
    t = path.snap(path.from_uniform((torch.arange(parts, dtype=torch.float64) + 0.5) / parts))
    first, second = torch.tensor([1.0, 2.0, 3.0, 8.0])[:parts], torch.tensor([3.0, 1.0, 3.0, 1.0])[:parts]
    law.update(t, first, path)
    torch.testing.assert_close(law.density(t, path), torch.ones(parts, dtype=torch.float64))  # not yet ready
    law.update(t, second, path)
    roots = ((first**2 + second**2) / 2).sqrt().double()
    expected = 0.1 + 0.9 * parts * roots / roots.sum()
    torch.testing.assert_close(law.density(t, path), expected, rtol=1e-5, atol=0)
    before = float(law.squares[0])
    law.update(t[:1], 5 / law.density(t[:1], path), path)  # a raw loss of 5, as the training has divided it
    assert float(law.squares[0]) == pytest.approx(before + (25 - before) / 2, rel=1e-5)


def test_what_loss_aware_learns_depends_on_no_order_and_is_saved():
    path = RectifiedFlow()
    generator = torch.Generator().manual_seed(0)
    t = path.snap(torch.rand(64, generator=generator))
    losses = torch.randn(64, generator=generator).square()
    losses[5] = torch.nan  # left out
    order = torch.randperm(64, generator=generator)
    one, other = taught(path), taught(path)
    one.update(t, losses, path)
    other.update(t[order], losses[order], path)
    assert torch.equal(one.squares, other.squares)
    assert torch.equal(one.counts, other.counts)
    assert int(one.counts.sum()) == 4 + 63
    diffusion = Diffusion(path, Velocity(), timesteps=Stratified(one))
    fresh = Diffusion(path, Velocity(), timesteps=Stratified(LossAware(4, history=1)))
    fresh.load_state_dict(diffusion.state_dict())
    u = torch.rand(8, generator=generator)
    assert torch.equal(fresh.quantile(u), diffusion.quantile(u))


def test_loss_aware_leaves_the_mean_loss_as_it_is_and_lowers_its_variance():
    path, shape = Linear(num_steps=8), (1, 1, 1)
    sizes = torch.tensor([0.1, 0.2, 0.2, 0.5, 1.0, 3.0, 6.0, 9.0], dtype=torch.float64)

    def net(x_t: Tensor, heard: Tensor, cond: None) -> Tensor:
        return sizes.sqrt()[heard.long()].reshape(-1, *shape)

    def losses(law: Timesteps) -> Tensor:
        # x0 = eps = 0, so that the target is 0 and the loss of step k is sizes[k]
        diffusion = Diffusion(path, V(), timesteps=law)
        t = diffusion.quantile((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
        zeros = torch.zeros(len(t), *shape, dtype=torch.float64)
        return diffusion.loss(net, zeros, t, zeros, None)

    plain, aware = losses(UniformTimesteps()), losses(taught(path, 8, sizes=sizes))
    assert float(aware.mean()) == pytest.approx(float(plain.mean()), rel=1e-3)
    assert float(aware.std()) < 0.02 * float(plain.std())


@pytest.mark.parametrize("law", [LogitNormal, LogNormalSigma], ids=["LogitNormal", "LogNormalSigma"])
@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"std": -1.0}, {"std": math.nan}, {"mean": math.inf}])
def test_a_spread_without_meaning_is_refused(law, wrong):
    with pytest.raises(ValueError, match="choose a finite number"):
        law(**wrong)


def test_laws_without_meaning_are_refused():
    for scale in (-1.1, 1.76, math.nan):
        with pytest.raises(ValueError, match="choose one from -1 to 1"):
            Mode(scale)
    with pytest.raises(ValueError, match="choose at least 2"):
        LossAware(bins=1)
    with pytest.raises(ValueError, match="choose one over 0"):
        LossAware(uniform=0.0)
    with pytest.raises(ValueError, match="outside the noise levels of Cosine"):
        Diffusion(Cosine(), Velocity(), timesteps=Stratified(LogNormalSigma(40.0)))


def test_a_law_of_noise_levels_needs_noise():
    class Fade(Path):
        t_min, t_max = 0.0, 1.0

        def corrupt(self, x0, eps, t):
            return x0

        def start(self, eps):
            return eps

    with pytest.raises(ValueError, match="Fade adds no noise: use UniformTimesteps"):
        LogNormalSigma().check(Fade())
