"""What the diffusion tests share: every leaf class there is, and data whose exact denoiser is known."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass

import torch
from torch import Tensor

import ldm.diffusion
from ldm.diffusion import Denoise, Denoised
from ldm.diffusion.errors import Error
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.predictions import Prediction
from ldm.diffusion.samplers import Sampler
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
SAMPLERS: list[type[Sampler]] = leaves(Sampler)
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


def whitened(count: int, seed: int = 0) -> Tensor:
    """Normal points (count, 2) whose own mean is 0 and own covariance the identity, so no draw blurs a test."""
    points = normal(count, 2, seed=seed)
    points = points - points.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(points.T)), points.T, upper=False).T


class NoiseSource:
    """Standard normal draws like x from one seed; counts them."""

    def __init__(self, like: Tensor, seed: int = 1) -> None:
        self.like = like
        self.generator = torch.Generator().manual_seed(seed)
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.randn(self.like.shape, generator=self.generator, dtype=self.like.dtype)


def forbidden_noise() -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


@dataclass(frozen=True)
class Gaussian:
    """N(mean (2,), covariance (2, 2))."""

    mean: Tensor
    covariance: Tensor

    def denoiser(self, path: NoisePath) -> Denoise:
        """E[x0 | x_t] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m)."""

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            t = t.expand(x_t.shape[0])
            alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
            seen = alpha**2 * self.covariance + sigma**2 * torch.eye(2, dtype=x_t.dtype)
            rest = (x_t - alpha[:, 0] * self.mean)[:, :, None]
            return Denoised(self.mean + (alpha * self.covariance @ torch.linalg.solve(seen, rest))[:, :, 0])

        return denoise

    def transport(self, path: NoisePath, x: Tensor) -> Tensor:
        """Where the probability-flow ODE takes x (B, 2) from t_max to t = 0, in closed form (S diagonal)."""
        t = torch.tensor(path.t_max, dtype=torch.float64)
        variances = self.covariance.diagonal()
        spread = (path.alpha(t) ** 2 * variances + path.sigma(t) ** 2).sqrt()
        return self.mean + variances.sqrt() * (x - path.alpha(t) * self.mean) / spread


@dataclass(frozen=True)
class Mixture:
    """sum_k weights_k N(means_k, stds_k^2 I) in two dimensions."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, 2)
    stds: Tensor  # (K,)

    def denoiser(self, path: NoisePath) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            t = t.expand(x_t.shape[0])
            alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]  # (B, 1)
            variances = alpha**2 * self.stds**2 + sigma**2  # (B, K)
            rest = x_t[:, None] - alpha[:, :, None] * self.means  # (B, K, 2)
            logits = self.weights.log() - rest.square().sum(-1) / (2 * variances) - variances.log()
            each = self.means + (alpha * self.stds**2 / variances)[:, :, None] * rest
            return Denoised((logits.softmax(-1)[:, :, None] * each).sum(1))

        return denoise

    def draw(self, count: int, seed: int = 5) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        modes = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[modes] + self.stds[modes, None] * normal(count, 2, seed=seed + 1)


def sliced_wasserstein(one: Tensor, other: Tensor, directions: int = 32) -> float:
    """Mean over directions of the 1-D Wasserstein-1 distance of two sets (n, 2) of one size."""
    angles = torch.arange(directions, dtype=one.dtype) * torch.pi / directions
    lines = torch.stack([angles.cos(), angles.sin()])  # (2, directions)
    return float(((one @ lines).sort(0).values - (other @ lines).sort(0).values).abs().mean())


ROUND = Gaussian(torch.tensor([0.3, -0.5]).double(), torch.tensor([[0.8, 0.0], [0.0, 0.2]]).double())
TILTED = Gaussian(torch.tensor([0.3, -0.5]).double(), torch.tensor([[0.8, 0.3], [0.3, 0.4]]).double())
TWO_MODES = Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-1.2, 0.6], [0.8, -0.4]]).double(),
    torch.tensor([0.25, 0.4]).double(),
)
