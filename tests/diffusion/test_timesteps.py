import math

import pytest
import torch
from diffusion_cases import PATHS, TIMESTEPS, name

from ldm.diffusion.paths import Linear, RectifiedFlow
from ldm.diffusion.timesteps import LogitNormal, UniformTimesteps

PATHS_IN_TIME = pytest.mark.parametrize("path", PATHS, ids=name)
every_law = pytest.mark.parametrize("timesteps", TIMESTEPS, ids=name)


@every_law
@PATHS_IN_TIME
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quantile_function(timesteps, path, dtype):
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


@every_law
@PATHS_IN_TIME
def test_the_density_is_that_of_the_draws(timesteps, path):
    # Importance weights: the mean of f(t) / density(t) over the law's times is the mean of f over uniform ones.
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    t = path.snap(timesteps.quantile(u, path))
    inner = (t > 0.2) & (t < 0.8)  # away from the ends, where a law may have next to no mass
    weighed = (inner * (3 * t).cos() / timesteps.density(t, path)).mean()
    even = path.snap(path.from_uniform(u))
    expected = (((even > 0.2) & (even < 0.8)) * (3 * even).cos()).mean()
    assert float(weighed) == pytest.approx(float(expected), abs=2e-3)


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


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"std": -1.0}, {"std": math.nan}, {"mean": math.inf}])
def test_a_spread_without_meaning_is_refused(wrong):
    with pytest.raises(ValueError, match="choose a finite number"):
        LogitNormal(**wrong)
