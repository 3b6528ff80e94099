"""Discrete paths by a formula for their betas."""

import math

import torch
from torch import Tensor

from ldm.diffusion.paths.discrete import DiscretePath


class Linear(DiscretePath):
    """Betas evenly spaced, as in DDPM (arXiv 2006.11239, section 4) and DiT; CompVis calls it "sqrt_linear".

    Args:
        beta_start: First beta, over 0.
        beta_end: Last beta, at least beta_start and under 1.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
        zero_terminal_snr: Rescale so that the path ends in pure noise; see `end_in_noise`.
    """

    def __init__(
        self,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        num_steps: int = 1000,
        zero_terminal_snr: bool = False,
    ) -> None:
        betas = even(beta_start, beta_end, num_steps)
        self.beta_start, self.beta_end, self.zero_terminal_snr = beta_start, beta_end, zero_terminal_snr
        super().__init__(end_in_noise(betas) if zero_terminal_snr else betas)


class ScaledLinear(DiscretePath):
    """Square roots of the betas evenly spaced, as in latent and stable diffusion (arXiv 2112.10752).

    CompVis calls it "linear", DiT "quad", diffusers "scaled_linear".

    Args:
        beta_start: First beta, over 0.
        beta_end: Last beta, at least beta_start and under 1.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
        zero_terminal_snr: Rescale so that the path ends in pure noise; see `end_in_noise`.
    """

    def __init__(
        self,
        beta_start: float = 8.5e-4,
        beta_end: float = 0.012,
        num_steps: int = 1000,
        zero_terminal_snr: bool = False,
    ) -> None:
        betas = even_roots(beta_start, beta_end, num_steps)
        self.beta_start, self.beta_end, self.zero_terminal_snr = beta_start, beta_end, zero_terminal_snr
        super().__init__(end_in_noise(betas) if zero_terminal_snr else betas)


class Quadratic(DiscretePath):
    """Betas quadratic in k: "quad" in the code of DDPM (arXiv 2006.11239). ScaledLinear's formula, Linear's ends.

    Args:
        beta_start: First beta, over 0.
        beta_end: Last beta, at least beta_start and under 1.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000) -> None:
        self.beta_start, self.beta_end = beta_start, beta_end
        super().__init__(even_roots(beta_start, beta_end, num_steps))


class SigmoidBetas(DiscretePath):
    """Betas along a sigmoid of an argument from -6 to 6, as in GeoDiff (Xu et al. 2022, arXiv 2203.02923).

    diffusers calls it "sigmoid"; others call SigmoidAlphaBar so, which is another path.

    Args:
        beta_start: The beta that the sigmoid comes from, over 0.
        beta_end: The beta that it goes to, at least beta_start and under 1.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000) -> None:
        check_betas(beta_start, beta_end, num_steps)
        self.beta_start, self.beta_end = beta_start, beta_end
        share = torch.linspace(-6, 6, num_steps, dtype=torch.float64).sigmoid()
        super().__init__(beta_start + (beta_end - beta_start) * share)


class Exponential(DiscretePath):
    """Logarithms of the betas evenly spaced, so that each beta is the one before times the same number.

    Args:
        beta_start: First beta, over 0.
        beta_end: Last beta, at least beta_start and under 1; 0.05 leaves about as little of the data as Linear.
        num_steps: Number of steps T of the path (not of a sampler); the betas are not rescaled with it.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.05, num_steps: int = 1000) -> None:
        check_betas(beta_start, beta_end, num_steps)
        self.beta_start, self.beta_end = beta_start, beta_end
        logs = torch.linspace(math.log(beta_start), math.log(beta_end), num_steps, dtype=torch.float64)
        super().__init__(logs.exp())


class Constant(DiscretePath):
    """One beta for every step: "const" in the code of DDPM (arXiv 2006.11239).

    alpha_bar falls like exp(-t), which diffusers offers as alpha_bar "exp".

    Args:
        beta: The beta, over 0 and under 1.
        num_steps: Number of steps T of the path (not of a sampler); beta is not rescaled with it.
    """

    def __init__(self, beta: float = 0.01, num_steps: int = 1000) -> None:
        self.beta = beta
        super().__init__(even(beta, beta, num_steps))


class Betas(DiscretePath):
    """Any list of betas, say of a model from elsewhere.

    Args:
        betas: Each over 0 and under 1; the last may be 1, then the path ends in pure noise. Left out, those of Linear.
    """

    def __init__(self, betas: list[float] | None = None) -> None:
        table = even(1e-4, 0.02, 1000) if betas is None else torch.tensor(betas, dtype=torch.float64)
        if len(table) == 0:
            raise ValueError("betas=[] leaves the noise path empty; give at least one number.")
        if not bool(((table > 0) & (table < 1))[:-1].all()) or not 0 < float(table[-1]) <= 1:
            raise ValueError(
                "betas make no noise path; choose each over 0 and under 1 (the last may be 1, for pure noise)."
            )
        self.betas = table.tolist()
        super().__init__(table)


def end_in_noise(betas: Tensor) -> Tensor:
    """Betas (T,) whose alphas are shifted and scaled to end at 0 and keep their first, so that the last beta is 1.

    Zero terminal signal-to-noise ratio (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
    """
    if len(betas) < 2:
        raise ValueError("zero_terminal_snr leaves nothing of a single step; choose num_steps of at least 2.")
    alphas = (torch.log1p(-betas).cumsum(0) / 2).exp()
    alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
    return torch.cat([betas[:1], 1 - (alphas[1:] / alphas[:-1]).square()])


def even(beta_start: float, beta_end: float, num_steps: int) -> Tensor:
    """Betas (T,) evenly spaced."""
    check_betas(beta_start, beta_end, num_steps)
    return torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)


def even_roots(beta_start: float, beta_end: float, num_steps: int) -> Tensor:
    """Betas (T,) whose square roots are evenly spaced."""
    check_betas(beta_start, beta_end, num_steps)
    return torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_steps, dtype=torch.float64).square()


def check_betas(beta_start: float, beta_end: float, num_steps: int) -> None:
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            f"beta_start={beta_start} and beta_end={beta_end} make no noise path; "
            "choose 0 < beta_start <= beta_end < 1."
        )
    check_steps(num_steps)


def check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} leaves the noise path empty; choose at least 1 (1000 is usual).")
