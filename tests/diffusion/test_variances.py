"""Variances against the papers' formulas in numpy."""

import numpy as np
import pytest
import torch
from diffusion_cases import PATHS, inner_times, leaves, name

from ldm.diffusion.paths import Linear
from ldm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, Variance
from ldm.diffusion.variances.base import log_large, log_small

STEPS = 12
PATH = Linear(0.01, 0.3, STEPS)
BETAS = np.linspace(0.01, 0.3, STEPS)
BARS = np.cumprod(1 - BETAS)
TILDE = BETAS[1:] * (1 - BARS[:-1]) / (1 - BARS[1:])  # arXiv 2006.11239, eq. 7, of the steps k = 1, 2, ...
CLIPPED = np.append(TILDE[0], TILDE)  # at k = 0, where it is 0, that of k = 1
K = torch.arange(STEPS, dtype=torch.float64)
T, S = (K + 1) / STEPS, K / STEPS
RAW = torch.linspace(-1.5, 1.5, STEPS * 6, dtype=torch.float64).reshape(STEPS, 2, 3)


def test_fixed_small_is_the_posteriors():
    found = FixedSmall().log_variance(PATH, T, S, None)
    np.testing.assert_allclose(found.exp().numpy(), CLIPPED, rtol=1e-10)


def test_fixed_large_is_beta_but_for_the_last_step():
    found = FixedLarge().log_variance(PATH, T, S, None)
    np.testing.assert_allclose(found.exp().numpy(), np.append(TILDE[0], BETAS[1:]), rtol=1e-10)


def test_the_learned_range_is_between_them_on_the_log_scale():
    found = LearnedRange().log_variance(PATH, T, S, RAW)
    share = (RAW.numpy() + 1) / 2
    low, high = (np.log(each)[:, None, None] for each in (CLIPPED, BETAS))
    np.testing.assert_allclose(found.numpy(), share * high + (1 - share) * low, rtol=1e-10)


@pytest.mark.parametrize("variance", [leaf() for leaf in leaves(Variance)], ids=name)
def test_one_time_for_the_batch_is_that_time_for_each(variance):
    raw = RAW if variance.learned else None
    for k in (0, 5):
        one = variance.log_variance(PATH, T[k], S[k], raw)
        each = variance.log_variance(PATH, T[k].expand(STEPS), S[k].expand(STEPS), raw)
        torch.testing.assert_close(one.expand(each.shape), each)


def test_a_learned_variance_needs_a_network_that_has_one():
    assert [leaf for leaf in leaves(Variance) if leaf.learned] == [LearnedRange]
    with pytest.raises(ValueError, match=r"LearnedRange needs a network .* or use FixedSmall"):
        LearnedRange().log_variance(PATH, T, S, None)


def test_half_precision_networks_have_variances_in_single_precision():
    raw = RAW.bfloat16()
    found = LearnedRange().log_variance(PATH, T, S, raw)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), LearnedRange().log_variance(PATH, T, S, raw.double()))


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_small_and_large_by_the_rules_of_gaussians_on_every_path(path):
    times = path.snap(inner_times(path, 12))
    s, t = times[:-1], times[1:]
    kept, noise = path.alpha(t) / path.alpha(s), path.sigma(s).square()
    new = path.sigma(t).square() - kept.square() * noise  # x_t = kept x_s + sqrt(new) eps
    torch.testing.assert_close(log_large(path, t, s).exp(), new, rtol=1e-6, atol=0)
    torch.testing.assert_close(log_small(path, t, s).exp(), 1 / (1 / noise + kept.square() / new), rtol=1e-6, atol=0)
