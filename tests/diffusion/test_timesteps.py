import math

import pytest
import torch
from diffusion_cases import PATHS, TIMESTEPS, name

from ldm.diffusion.timesteps import LogitNormal, UniformTimesteps


@pytest.mark.parametrize("timesteps", TIMESTEPS, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quantile_function(timesteps, dtype):
    u = torch.linspace(0, 1, 1001, dtype=dtype)[:-1]
    t = timesteps(u)
    assert t.shape == u.shape
    assert t.dtype == dtype
    assert ((t >= 0) & (t <= 1)).all()
    assert (t.diff() >= 0).all()
    for path in PATHS:
        assert (path.snap(t) > 0).all()


def test_uniform_is_the_identity():
    u = torch.rand(8)
    assert torch.equal(UniformTimesteps()(u), u)


def test_logit_normal_has_a_normal_logit():
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    logit = torch.logit(LogitNormal(mean=-0.4, std=1.2)(u))
    assert float(logit.mean()) == pytest.approx(-0.4, abs=1e-3)
    assert float(logit.std()) == pytest.approx(1.2, abs=2e-3)
    below_one_std = (logit < -0.4 + 1.2).double().mean()
    assert float(below_one_std) == pytest.approx(0.5 * (1 + math.erf(0.5**0.5)), abs=1e-4)


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"std": -1.0}, {"std": math.nan}, {"mean": math.inf}])
def test_a_spread_without_meaning_is_refused(wrong):
    with pytest.raises(ValueError, match="choose a finite number"):
        LogitNormal(**wrong)
