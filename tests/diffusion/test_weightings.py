import pytest
import torch
from diffusion_cases import PAIRS, PATHS, WEIGHTINGS, inner_times, name, pair_name

from ldm.diffusion.paths import RectifiedFlow
from ldm.diffusion.predictions import X0, Eps, V, Velocity
from ldm.diffusion.weightings import MinSNR, Uniform

PRESERVING = [path for path in PATHS if name(path) != "RectifiedFlow"]


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("pair", PAIRS, ids=pair_name)
def test_weights_are_finite_and_not_negative_wherever_a_network_is_trained(weighting, pair):
    path, prediction = pair
    for t in (inner_times(path), inner_times(path).float()):
        weights = weighting(t, path, prediction)
        assert weights.shape == t.shape
        assert weights.dtype == t.dtype
        assert weights.isfinite().all()
        assert (weights >= 0).all()


@pytest.mark.parametrize("path", PRESERVING, ids=name)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_closed_forms(path, gamma):
    t = inner_times(path)
    snr = (path.alpha(t) / path.sigma(t)) ** 2
    cut = snr.clamp(max=gamma)
    weighting = MinSNR(gamma)
    torch.testing.assert_close(weighting(t, path, Eps()), cut / snr, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weighting(t, path, V()), cut / (snr + 1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weighting(t, path, X0()), cut, rtol=1e-9, atol=1e-12)


def test_min_snr_on_rectified_flow():
    t = inner_times(RectifiedFlow())
    cut = ((1 - t) / t).square().clamp(max=5)
    torch.testing.assert_close(MinSNR()(t, RectifiedFlow(), Velocity()), cut * t.square())
    torch.testing.assert_close(MinSNR()(t, RectifiedFlow(), V()), cut * (t / ((1 - t) ** 2 + t**2)) ** 2)


def test_uniform_is_one():
    assert torch.equal(Uniform()(torch.rand(4), RectifiedFlow(), Velocity()), torch.ones(4))


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_a_gamma_without_meaning_is_refused(gamma):
    with pytest.raises(ValueError, match="choose a number over 0"):
        MinSNR(gamma)
