"""The diagonal Gaussian against torch.distributions."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ldm.autoencoders import DiagonalGaussian


@pytest.fixture
def gaussian() -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(2 * mean, 2 * logvar)


def test_kl_is_the_sum_of_the_closed_form(gaussian: DiagonalGaussian) -> None:
    expected = kl_divergence(Normal(gaussian.mean, gaussian.std), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(gaussian.kl(), expected)


def test_kl_is_zero_at_the_standard_normal_only() -> None:
    zeros = torch.zeros(2, 3, 4, 4)
    assert DiagonalGaussian(zeros, zeros).kl().tolist() == [0.0, 0.0]
    assert (DiagonalGaussian(zeros, zeros + 0.1).kl() > 0).all()
    assert (DiagonalGaussian(zeros + 0.1, zeros).kl() > 0).all()


def test_kl_agrees_with_monte_carlo() -> None:
    gaussian = DiagonalGaussian(torch.full((1, 1, 1, 1), 0.7), torch.full((1, 1, 1, 1), -1.2))
    eps = torch.randn(200_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    z = gaussian.sample(eps)
    difference = Normal(gaussian.mean, gaussian.std).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    assert abs(difference.mean() - gaussian.kl()) < 0.01


def test_sample_is_a_function_of_eps(gaussian: DiagonalGaussian) -> None:
    eps = torch.randn(gaussian.mean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(gaussian.sample(eps), gaussian.sample(eps))
    torch.testing.assert_close((gaussian.sample(eps) - gaussian.mean) / gaussian.logvar.exp().sqrt(), eps)
    assert torch.equal(gaussian.sample(torch.zeros_like(eps)), gaussian.mode)


def test_moments_round_trip(gaussian: DiagonalGaussian) -> None:
    moments = gaussian.moments()
    assert moments.shape == (3, 8, 5, 6)
    again = DiagonalGaussian.from_moments(moments)
    assert torch.equal(again.mean, gaussian.mean)
    assert torch.equal(again.logvar, gaussian.logvar)


def test_normalised_is_the_distribution_of_normalised_samples(gaussian: DiagonalGaussian) -> None:
    mean, std = torch.tensor([0.0, 1.0, -2.0, 5.0]).double(), torch.tensor([1.0, 0.5, 4.0, 0.1]).double()
    eps = torch.randn(gaussian.mean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = (gaussian.sample(eps) - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(gaussian.normalised(mean, std).sample(eps), expected)


def test_extreme_log_variances_stay_finite() -> None:
    moments = torch.tensor([0.0, 1e4, 0.0, -1e4]).bfloat16().reshape(2, 2, 1, 1)
    gaussian = DiagonalGaussian.from_moments(moments)
    assert gaussian.mean.dtype == torch.float32
    assert gaussian.logvar.flatten().tolist() == [20.0, -30.0]
    assert gaussian.kl().isfinite().all()
