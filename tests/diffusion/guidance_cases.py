"""What the guidance tests share: a contrast of Gaussians that counts what it is asked, and an exact classifier."""

import math

import torch
from diffusion_cases import ROUND, TILTED, Gaussian, leaves, normal

from ldm.diffusion import Denoised
from ldm.diffusion.guidance import ClassifierFree, ClassifierGuidance, Contrast, Guidance
from ldm.diffusion.paths import Cosine, Linear, RectifiedFlow

WEAK = Gaussian(torch.tensor([-0.2, 0.1]).double(), torch.tensor([[1.5, 0.2], [0.2, 0.9]]).double())
SOME_PATHS = [Cosine(), Linear(), RectifiedFlow()]
RULES = [rule for rule in leaves(Guidance) if rule.__module__.startswith("ldm.diffusion.guidance.")]

X_T = 1.5 * normal(64, 2)


class Asked(Contrast):
    """TILTED is wanted, ROUND the other and WEAK the weak model; counts how often each of them is asked."""

    def __init__(self, path, batched=True, count=64):
        def counting(which, answer):
            def denoise(x_t, t):
                self.counts[which] += 1
                return answer(x_t, t)

            return denoise

        self.counts = dict.fromkeys(("wanted", "other", "both", "weak"), 0)
        wanted, other, weak = (gaussian.denoiser(path) for gaussian in (TILTED, ROUND, WEAK))
        both = counting("both", lambda x_t, t: (wanted(x_t, t), other(x_t, t)))
        super().__init__(
            path,
            counting("wanted", wanted),
            counting("other", other),
            both if batched else None,
            counting("weak", weak),
            torch.zeros(count, dtype=torch.long),
        )

    def calls(self):
        """What was asked, each with how often."""
        return {which: count for which, count in self.counts.items() if count}


def answers(path, x_t, t):
    """x0 of wanted, other and weak."""
    return tuple(gaussian.denoiser(path)(x_t, t).x0 for gaussian in (TILTED, ROUND, WEAK))


def constant(x0):
    return lambda x_t, t: Denoised(x0)


def at(t):
    return torch.tensor(t, dtype=torch.float64)


def log_density(gaussian, path, x_t, t):
    """log p(x_t) up to a constant that all Gaussians share, (B,)."""
    alpha, sigma = path.alpha(t).reshape(-1, 1, 1), path.sigma(t).reshape(-1, 1, 1)
    seen = alpha**2 * gaussian.covariance + sigma**2 * torch.eye(2, dtype=x_t.dtype)
    rest = (x_t - alpha[:, 0] * gaussian.mean)[:, :, None]
    return -(rest * torch.linalg.solve(seen, rest)).sum((1, 2)) / 2 - torch.logdet(seen) / 2


def x0_of_density(log_p, path, x_t, t):
    """(x_t + sigma^2 grad log p) / alpha, Tweedie's formula."""
    x = x_t.clone().requires_grad_()
    score = torch.autograd.grad(log_p(x).sum(), x)[0]
    return (x_t + path.sigma(t) ** 2 * score) / path.alpha(t)


def classify(path):
    """The exact logits (B, 2) of a mixture of TILTED (0.3) and ROUND (0.7)."""

    def classifier(x_t, t):
        tilted, round_ = (log_density(gaussian, path, x_t, t) for gaussian in (TILTED, ROUND))
        return torch.stack([math.log(0.3) + tilted, math.log(0.7) + round_], 1)

    return classifier


def in_company(rule, path):
    """A leaf as a batch is guided by it: with a classifier, or after another rule, where it needs that."""
    made = rule(classify(path)) if rule is ClassifierGuidance else rule()
    return [ClassifierFree(3.0), made] if made.needs_rule else [made]
