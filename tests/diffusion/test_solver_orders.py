"""The order of convergence of the deterministic samplers, fitted against the exact end of the ODE.

Measured at t_min, the last time over 0: the step from there to 0 returns x0, which is exact in no order.
"""

import math

import pytest
import torch
from diffusion_cases import ON_A_LINE, PATHS, ROUND, Gaussian, Mixture, forbidden_noise, name, normal
from torch import Tensor

from ldm.diffusion.paths import Cosine, Linear, NoisePath, RectifiedFlow, ScaledLinear, level
from ldm.diffusion.samplers import DDIM, DEIS, PLMS, PNDM, DPMSolver, DPMSolverPP, Euler, Sampler, UniPC
from ldm.diffusion.spacings import Linspace, Spacing


class Even(Spacing):
    """Even in lambda from t_max to t_min, both visited, where the solvers in lambda have their order."""

    def times(self, num_steps: int, path: NoisePath) -> Tensor:
        ends = path.logsnr(torch.tensor([path.t_max, path.t_min], dtype=torch.float64))
        times = path.t_from_logsnr(torch.linspace(float(ends[0]), float(ends[1]), num_steps, dtype=torch.float64))
        times[0], times[-1] = path.t_max, path.t_min
        return times


class Cut(Cosine):
    """The cosine path down to t = 0.05, above which a few dozen steps are small for every solver.

    It starts so high that x0 hardly changes on the first steps, whose lower order is then not felt.
    """

    t_min = 0.05


def full(sampler: type[Sampler], order: int, **options: object) -> tuple[type[Sampler], dict[str, object]]:
    return sampler, {"order": order, **options}


def distances(
    target: Gaussian | Mixture, make: tuple[type[Sampler], dict], spacing: Spacing, path: NoisePath, counts: list[int]
) -> list[float]:
    """Root mean square distance from the exact point at t_min after each number of steps."""
    sampler, options = make
    x = path.start(normal(32, 2 if isinstance(target, Gaussian) else 1))
    exact, denoise, found = target.transport(path, x, end=path.t_min), target.denoiser(path), []
    for count in counts:
        walk = sampler(num_steps=count + 1, spacing=spacing, **options).steps(denoise, path, x, forbidden_noise)
        x_low = next(step for step in walk if step.t == pytest.approx(path.t_min)).x
        found.append(float((x_low - exact).square().mean().sqrt()))
    return found


def fitted(errors: list[float], counts: list[int]) -> float:
    """The exponent p of error ~ count^-p, by least squares."""
    x, y = (torch.tensor([math.log(value) for value in values]).double() for values in (counts, errors))
    x, y = x - x.mean(), y - y.mean()
    return -float((x @ y) / (x @ x))


LATE = {"lower_order_final": False}
ORDERS = [  # sampler, options, order
    ((DDIM, {}), 1),
    ((Euler, {}), 1),
    (full(DPMSolver, 1), 1),
    (full(DPMSolver, 2), 2),
    (full(DPMSolver, 3), 3),
    (full(DPMSolverPP, 1), 1),
    (full(DPMSolverPP, 2, **LATE), 2),
    (full(DPMSolverPP, 3, **LATE), 3),
    (full(DPMSolverPP, 2, multistep=False), 2),
    (full(DPMSolverPP, 3, multistep=False), 3),
    (full(DEIS, 1), 1),
    (full(DEIS, 2), 2),
    (full(DEIS, 3), 3),
    (full(DEIS, 4), 4),
    ((PLMS, {}), 2),
    ((PNDM, {}), 2),
    *((full(UniPC, order, variant=bh, **LATE), order + 1) for order in (1, 2, 3) for bh in ("bh1", "bh2")),
    *((full(UniPC, order, corrector=False, **LATE), order) for order in (1, 2, 3)),
]


def named(case: object) -> str:
    return f"{case[0].__name__}-{case[1]}" if isinstance(case, tuple) else str(case)


@pytest.mark.parametrize(("make", "order"), ORDERS, ids=named)
@pytest.mark.parametrize("target", [ROUND, ON_A_LINE], ids=["gaussian", "mixture"])
def test_the_order_is_the_one_that_is_claimed(make, order, target):
    counts = [80, 160]
    errors = distances(target, make, Even(), Cut(), counts)
    assert fitted(errors, counts) == pytest.approx(order, abs=0.15 * order)


@pytest.mark.parametrize("path", [path for path in PATHS if path.num_steps is None], ids=name)
@pytest.mark.parametrize(("make", "order"), [((DDIM, {}), 1), (full(DPMSolverPP, 2, **LATE), 2)], ids=named)
def test_the_order_holds_on_every_continuous_path(make, order, path):
    counts = [80, 160]
    spacing = Linspace() if level(path, path.t_max).alpha == 0 else Even()
    errors = distances(ROUND, make, spacing, path, counts)
    assert fitted(errors, counts) == pytest.approx(order, abs=0.25 * order)


@pytest.mark.parametrize("sampler", [DDIM, Euler])
@pytest.mark.parametrize("path", [Linear(), ScaledLinear(), RectifiedFlow()], ids=name)
def test_errors_at_zero_fall_under_the_usual_spacing(sampler, path):
    # sigma ~ sqrt(t) near data on discrete paths, so the last steps are not yet in the regime where the order is 1
    # exactly; and errors of opposite sign cancel in Euler's, which then falls faster. Counts divide T: even strides.
    eps = normal(64, 2)
    exact, denoise = ROUND.transport(path, path.start(eps)), ROUND.denoiser(path)
    counts = [10, 20, 50, 100]
    runs = [sampler(num_steps=count).sample(denoise, path, eps, forbidden_noise) for count in counts]
    errors = [float((x - exact).square().mean().sqrt()) for x in runs]
    assert errors == sorted(errors, reverse=True)
    assert fitted(errors, counts) > 0.8
    assert errors[-1] < 0.02


@pytest.mark.parametrize("path", [Linear(), Cosine(), RectifiedFlow()], ids=name)
def test_lowering_the_order_helps_where_the_last_step_is_long(path):
    x, errors = normal(64, 1), []
    for lower in (False, True):
        sampler = DPMSolverPP(10, spacing=Linspace(), lower_order_final=lower)
        end = sampler.sample(ON_A_LINE.denoiser(path), path, x, forbidden_noise)
        errors.append(float((end - ON_A_LINE.transport(path, path.start(x))).square().mean().sqrt()))
    assert errors[1] < 0.6 * errors[0]
