import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ldm.diffusion import Diffusion
from ldm.diffusion.objectives import ContinuousBound, LearnedUncertainty
from ldm.diffusion.paths import VE, Cosine, Linear, NoisePath, RectifiedFlow
from ldm.diffusion.predictions import X0, Eps, Preconditioned, V, Velocity
from ldm.diffusion.samplers import DDIM, DDPM
from ldm.diffusion.timesteps import LogitNormal, LogNormalSigma, LossAware, Stratified
from ldm.diffusion.weightings import EDMWeighting, ScoreMatching, SigmoidWeighting
from ldm.plotting import draw_noising, draw_path, draw_sampler, mixture, save
from ldm.plotting.path import effective_weight
from ldm.plotting.times import even_times


def normal_density(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))


def sd3(snr: np.ndarray) -> np.ndarray:
    """Esser et al. 2024, section 3.1, w_t = t / (1 - t) pi(t) with t = sigmoid(-snr / 2): pi dt is a normal logit's."""
    t = 1 / (1 + np.exp(snr / 2))
    return t / (1 - t) * normal_density(snr / 2, 0, 1) / (t * (1 - t))


# Kingma and Gao 2023, table 1: what known ways of training weigh, as a function of the log-SNR.
KNOWN = [
    (Diffusion(Cosine(), Eps()), lambda snr: 1 / np.cosh(snr / 2)),
    (Diffusion(Cosine(), V()), lambda snr: np.exp(-snr / 2)),
    (Diffusion(RectifiedFlow(), Velocity()), lambda snr: np.exp(-snr / 2)),
    (
        Diffusion(Cosine(), Preconditioned(), EDMWeighting(), LogNormalSigma(-1.2, 1.2)),
        lambda snr: normal_density(snr, 2.4, 2.4) * (np.exp(-snr) + 1),
    ),
    (Diffusion(RectifiedFlow(), Velocity(), timesteps=LogitNormal()), sd3),
    (Diffusion(Cosine(), X0(), SigmoidWeighting(1.5)), lambda snr: 1 / (1 + np.exp(snr - 1.5))),
    (Diffusion(Cosine(), Eps(), objective=ContinuousBound()), lambda snr: np.ones_like(snr)),
    (Diffusion(Cosine(), X0(), SigmoidWeighting(), LossAware()), lambda snr: 1 / (1 + np.exp(snr))),
]


@pytest.mark.parametrize(("diffusion", "known"), KNOWN)
def test_the_effective_weight_is_that_of_the_literature_up_to_a_factor(diffusion, known):
    t = even_times(diffusion.path, 101)[1:-1]
    with torch.no_grad():
        found = effective_weight(diffusion, t).numpy()
    expected = known(diffusion.path.logsnr(t).numpy())
    np.testing.assert_allclose(found / found[50], expected / expected[50], rtol=1e-4)


@pytest.mark.parametrize("path", [Cosine(), RectifiedFlow(), VE()])
def test_the_mixtures_denoiser_is_that_of_its_score(path: NoisePath):
    """Tweedie: E[x0 | x_t] = (x_t + sigma^2 grad log p(x_t)) / alpha."""
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(True)
    t = torch.linspace(0.3, 0.9, 6, dtype=torch.float64)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    variances = (alpha * mixture.STDS) ** 2 + sigma**2
    squares = (x[:, None] - alpha[:, :, None] * mixture.MEANS).square().sum(-1)
    log_p = (mixture.WEIGHTS * (-squares / (2 * variances)).exp() / variances).sum(1).log()
    (score,) = torch.autograd.grad(log_p.sum(), x)
    torch.testing.assert_close(mixture.denoiser(path)(x, t).x0, (x + sigma**2 * score) / alpha)


def test_the_mixtures_density_is_one_in_all():
    line = torch.linspace(-4, 4, 401, dtype=torch.float64)
    height = mixture.density(torch.stack(torch.meshgrid(line, line, indexing="xy"), -1))
    assert float(height.sum() * 0.02**2) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "diffusion",
    [
        Diffusion(Linear(num_steps=10), Eps(), ScoreMatching(), Stratified(LossAware())),
        Diffusion(RectifiedFlow(), Velocity(), objective=LearnedUncertainty()),
    ],
)
def test_a_path_is_drawn_as_it_is(diffusion):
    levels, snr, times, weights = draw_path(diffusion, "a title").axes
    t = levels.lines[0].get_xdata()
    assert len(t) == (1001 if diffusion.path.num_steps is None else 10)
    alpha = diffusion.path.alpha(torch.as_tensor(t))
    np.testing.assert_array_equal(levels.lines[0].get_ydata(), alpha)
    assert np.isfinite(snr.lines[0].get_ydata()).all()
    np.testing.assert_allclose(times.lines[0].get_ydata(), 1, rtol=1e-9)
    assert weights.lines[0].get_ydata().max() == 1
    for axes in (levels, snr, times, weights):
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    if isinstance(diffusion.timesteps, nn.Module):
        assert times.get_title() == "Trained times: stratified LossAware, before it has learned"


@pytest.mark.parametrize("whiten", [False, True])
def test_an_image_is_drawn_under_its_noise(whiten):
    image = torch.linspace(-1, 1, 3 * 16).reshape(3, 4, 4)
    figure = draw_noising(Linear(), image, torch.randn(3, 4, 4), 4, whiten, "a title")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 5
    np.testing.assert_allclose(shown[0], (image.permute(1, 2, 0) + 1) / 2)
    assert np.abs(shown[1] - shown[0]).max() < 0.1  # t_min
    assert np.abs(shown[4] - shown[0]).max() > 0.3
    assert "log-SNR" in figure.axes[1].get_title()


@pytest.mark.parametrize(("sampler", "path"), [(DDIM(3), VE()), (DDPM(4), Cosine())])
def test_a_samplers_trajectories_start_in_noise_and_end_at_the_samples(sampler, path):
    figure = draw_sampler(sampler, path, lines=5, samples=7, seed=1, title="a title")
    left, right = figure.axes
    assert len(left.lines) == 5
    assert all(len(line.get_xdata()) == sampler.num_steps + 1 for line in left.lines)
    ends = np.array([line.get_xydata()[-1] for line in left.lines])
    samples = right.collections[-1].get_offsets()
    assert len(samples) == 7
    np.testing.assert_array_equal(ends, samples[:5])
    starts = np.array([line.get_xydata()[0] for line in left.lines])
    assert np.abs(starts).max() < 4  # scaled to the spread of x, on every path


def test_a_picture_is_a_png_and_the_same_each_time(tmp_path):
    for name in ("one", "other"):
        save(draw_sampler(DDPM(4), Cosine(), 5, 7, 0, "a title"), tmp_path / "new" / f"{name}.png")
    assert (tmp_path / "new" / "one.png").read_bytes() == (tmp_path / "new" / "other.png").read_bytes()
    with Image.open(tmp_path / "new" / "one.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1500, 840)
