"""What the diffusion tests share: every leaf class there is, and data whose exact denoiser is known."""

import importlib
import inspect
import math
import pkgutil
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

import ldm.diffusion
from ldm.diffusion import Denoise, Denoised
from ldm.diffusion.errors import Error
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.samplers import Cold, Sampler
from ldm.diffusion.spacings import Spacing
from ldm.diffusion.timesteps import Timesteps
from ldm.diffusion.weightings import Weighting

# A new file is tested as soon as it is there, whether or not its package names it.
for found in pkgutil.walk_packages(ldm.diffusion.__path__, "ldm.diffusion."):
    importlib.import_module(found.name)


def leaves(seam: type) -> list[type]:
    """Every concrete class of ours under an ABC."""
    below = [leaf for child in seam.__subclasses__() for leaf in leaves(child)]
    ours = seam.__module__.startswith("ldm.") and not inspect.isabstract(seam)
    return [seam, *below] if ours else below


PATHS: list[NoisePath] = [leaf() for leaf in leaves(NoisePath)]
PREDICTIONS: list[Prediction] = [leaf() for leaf in leaves(Prediction)]
WEIGHTINGS: list[Weighting] = [leaf() for leaf in leaves(Weighting)]
TIMESTEPS: list[Timesteps] = [leaf() for leaf in leaves(Timesteps)]
SAMPLERS: list[type[Sampler]] = [leaf for leaf in leaves(Sampler) if leaf is not Cold]  # it removes no noise
SPACINGS: list[Spacing] = [leaf() for leaf in leaves(Spacing)]
ERRORS: list[Error] = [leaf() for leaf in leaves(Error)]


def name(case: object) -> str:
    """The id of a test case: its class."""
    return case.__name__ if isinstance(case, type) else type(case).__name__


def fits(prediction: Prediction, path: NoisePath) -> bool:
    try:
        prediction.check(path)
    except ValueError:
        return False
    return True


PAIRS = [(path, prediction) for path in PATHS for prediction in PREDICTIONS if fits(prediction, path)]


def pair_name(pair: tuple[NoisePath, Prediction]) -> str:
    return f"{name(pair[0])}-{name(pair[1])}"


def inner_times(path: NoisePath, count: int = 97) -> Tensor:
    """Times (count,) float64 between t_min and t_max, both included; mostly off the grid of a discrete path."""
    return torch.linspace(path.t_min, path.t_max, count, dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@cache
def _uncorrelated(count: int) -> Tensor:
    """(count, up to 899): each column of mean 0 and variance 1, and all columns uncorrelated, to rounding."""
    columns = min(count, 900) - 1
    basis = torch.linalg.qr(torch.cat([torch.ones(count, 1).double(), normal(count, columns, seed=11)], 1)).Q
    return basis[:, 1:] * (count - 1) ** 0.5


def whitened(count: int, dimensions: int = 2) -> Tensor:
    """About normal points whose own mean is 0 and own covariance the identity, so no draw blurs a test."""
    return _uncorrelated(count)[:, :dimensions].clone()


class NoiseSource:
    """Standard normal draws like x from one seed; counts them."""

    def __init__(self, like: Tensor, seed: int = 1) -> None:
        self.like = like
        self.generator = torch.Generator().manual_seed(seed)
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.randn(self.like.shape, generator=self.generator, dtype=self.like.dtype)


class WhiteNoise:
    """Draws for points that start from `whitened`, each uncorrelated over the batch with those and with each other.

    So where all is linear, as on a Gaussian, the points' own mean and covariance go exactly the way those of the law
    go, and a stochastic sampler is tested like a deterministic one. When the columns are used up, draws are
    common random numbers.
    """

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.columns = _uncorrelated(len(like))
        self.more = NoiseSource(like)
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        width = self.like.shape[1]
        drawn = self.columns[:, self.calls * width : (self.calls + 1) * width]
        return drawn.clone() if drawn.shape[1] == width else self.more()


def forbidden_noise() -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


@dataclass(frozen=True)
class Gaussian:
    """N(mean (2,), covariance (2, 2))."""

    mean: Tensor
    covariance: Tensor

    def denoiser(self, path: NoisePath) -> Denoise:
        """E[x0 | x_t] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m)."""

        gains: dict[float, tuple[Tensor, Tensor]] = {}  # by 0-dim t, for many short runs are made of one denoiser

        def gain(t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = path.alpha(t)[..., None, None], path.sigma(t)[..., None, None]
            seen = alpha**2 * self.covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
            return alpha[..., 0] * self.mean, alpha * torch.linalg.solve(seen, self.covariance)  # they commute

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            if t.dim():
                center, slope = gain(t)
                return Denoised(self.mean + ((x_t - center)[:, None] @ slope)[:, 0])
            if float(t) not in gains:
                with torch.no_grad():
                    gains[float(t)] = gain(t)
            center, slope = gains[float(t)]
            return Denoised(self.mean + (x_t - center) @ slope)

        return denoise

    def estimated(self, path: NoisePath, t: float) -> Tensor:
        """The covariance of E[x0 | x_t], which is what a sampler that looks at t and returns x0 there leads to."""
        time = torch.tensor(t, dtype=torch.float64)
        with torch.no_grad():
            alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
        seen = alpha**2 * self.covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
        return alpha**2 * self.covariance @ torch.linalg.solve(seen, self.covariance)

    def transport(self, path: NoisePath, x: Tensor, end: float = 0.0) -> Tensor:
        """Where the probability-flow ODE takes x (B, 2) from t_max to `end`, in closed form (S diagonal)."""
        t = torch.tensor([path.t_max, end], dtype=torch.float64)
        with torch.no_grad():
            alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        spread = (alpha**2 * self.covariance.diagonal() + sigma**2).sqrt()
        return alpha[1] * self.mean + spread[1] * (x - alpha[0] * self.mean) / spread[0]


@dataclass(frozen=True)
class Mixture:
    """sum_k weights_k N(means_k, stds_k^2 I) in D dimensions; x_t under any path is another one, at any t."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, D)
    stds: Tensor  # (K,)

    def denoiser(self, path: NoisePath) -> Denoise:
        """The exact E[x0 | x_t], for x_t (B, D)."""

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            alpha, _, variances, rest, logits = self._parts(path, x_t, t)
            each = self.means + (alpha * self.stds**2 / variances)[:, :, None] * rest
            return Denoised((logits.softmax(-1)[:, :, None] * each).sum(1))

        return denoise

    def log_prob(self, path: NoisePath, x_t: Tensor, t: Tensor) -> Tensor:
        """log density of x_t (B, D) at t (B,) or 0-dim: (B,). At t = 0 it is that of the data."""
        return self._parts(path, x_t, t)[4].logsumexp(-1) - x_t.shape[1] / 2 * math.log(2 * math.pi)

    def score(self, path: NoisePath, x_t: Tensor, t: Tensor) -> Tensor:
        """grad log p(x_t): (B, D)."""
        _, _, variances, rest, logits = self._parts(path, x_t, t)
        return -(logits.softmax(-1)[:, :, None] * rest / variances[:, :, None]).sum(1)

    def draw(self, count: int, seed: int = 5) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        modes = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[modes] + self.stds[modes, None] * normal(count, self.means.shape[1], seed=seed + 1)

    def transport(self, path: NoisePath, x: Tensor, end: float = 0.0) -> Tensor:
        """Where the probability-flow ODE takes x (B, 1) from t_max to `end`: in 1-D it keeps quantiles."""
        start, stop = (torch.tensor(t, dtype=torch.float64) for t in (path.t_max, end))
        with torch.no_grad():
            wanted = self._cdf(path, x, start)
            low, high = torch.full_like(x, -100), torch.full_like(x, 100)
            for _ in range(60):
                middle = (low + high) / 2
                above = self._cdf(path, middle, stop) > wanted
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def _parts(self, path: NoisePath, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma (B or 1, 1), variances (., K), x_t - alpha means (B, K, D), log(weight density) (B, K)."""
        alpha, sigma = path.alpha(t).reshape(-1, 1), path.sigma(t).reshape(-1, 1)
        variances = alpha**2 * self.stds**2 + sigma**2
        rest = x_t[:, None] - alpha[:, :, None] * self.means
        logits = self.weights.log() - rest.square().sum(-1) / (2 * variances) - x_t.shape[1] / 2 * variances.log()
        return alpha, sigma, variances, rest, logits

    def _cdf(self, path: NoisePath, x_t: Tensor, t: Tensor) -> Tensor:
        """The share of the law at t below x_t (B, 1): (B, 1)."""
        _, _, variances, rest, _ = self._parts(path, x_t, t)
        return (self.weights * torch.special.ndtr(rest[:, :, 0] / variances.sqrt())).sum(1, keepdim=True)


def sliced_wasserstein(one: Tensor, other: Tensor, directions: int = 32) -> float:
    """Mean over directions of the 1-D Wasserstein-1 distance of two sets (n, D) of one size."""
    lines = torch.nn.functional.normalize(normal(one.shape[1], directions, seed=7), dim=0)  # (D, directions)
    return float(((one @ lines).sort(0).values - (other @ lines).sort(0).values).abs().mean())


ROUND = Gaussian(torch.tensor([0.3, -0.5]).double(), torch.tensor([[0.8, 0.0], [0.0, 0.2]]).double())
TILTED = Gaussian(torch.tensor([0.3, -0.5]).double(), torch.tensor([[0.8, 0.3], [0.3, 0.4]]).double())
ON_A_LINE = Mixture(
    torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.2], [0.7]]).double(), torch.tensor([0.3, 0.5]).double()
)
TWO_MODES = Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-1.2, 0.6], [0.8, -0.4]]).double(),
    torch.tensor([0.25, 0.4]).double(),
)
SIXTEEN = Mixture(  # three modes in 16 dimensions
    torch.tensor([0.2, 0.3, 0.5]).double(), 0.8 * normal(3, 16, seed=9), torch.tensor([0.3, 0.4, 0.5]).double()
)
