import math

import numpy as np
import pytest
import torch
from diffusion_cases import ERRORS, PREDICTIONS, name, normal

from ldm.diffusion import Diffusion
from ldm.diffusion.errors import L1, MSE, Huber, PseudoHuber, VelocityDirection
from ldm.diffusion.paths import Cosine, RectifiedFlow
from ldm.diffusion.predictions import V, Velocity

OUTPUT, TARGET = normal(5, 3, 4, 4, seed=1), normal(5, 3, 4, 4, seed=11)
AWAY = (OUTPUT - TARGET).numpy().reshape(5, -1)


def cosines() -> np.ndarray:
    one, other = OUTPUT.numpy(), TARGET.numpy()
    return (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))  # (B, H, W)


CASES = [
    (MSE(), (AWAY**2).mean(1)),
    (L1(), np.abs(AWAY).mean(1)),
    (Huber(), np.where(np.abs(AWAY) < 1, AWAY**2, 2 * np.abs(AWAY) - 1).mean(1)),
    (Huber(0.3), np.where(np.abs(AWAY) < 0.3, AWAY**2, 0.6 * np.abs(AWAY) - 0.09).mean(1)),
    (PseudoHuber(0.7), (np.sqrt((AWAY**2).sum(1) + 0.49 * 48) - 0.7 * np.sqrt(48)) / np.sqrt(48)),
    (VelocityDirection(), (AWAY**2).mean(1) + (1 - cosines()).reshape(5, -1).mean(1)),
    (VelocityDirection(L1(), 0.5), np.abs(AWAY).mean(1) + 0.5 * (1 - cosines()).reshape(5, -1).mean(1)),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=[f"{name(error)}{i}" for i, (error, _) in enumerate(CASES)])
def test_against_the_formula(error, expected):
    np.testing.assert_allclose(error(OUTPUT, TARGET).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("error", ERRORS, ids=name)
@pytest.mark.parametrize("shape", [(4, 2), (4, 3, 5), (4, 3, 5, 5)])
def test_one_number_per_sample_least_where_nothing_is_wrong(error, shape):
    target = normal(*shape, seed=3)
    exact = error(target, target)
    assert exact.shape == (4,)
    torch.testing.assert_close(exact, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (error(target + 0.1 * normal(*shape, seed=4), target) > 0).all()
    assert error(target.float(), target.float()).dtype == torch.float32
    alone = error(target[1:2] + 1, target[1:2])
    torch.testing.assert_close(error(target + 1, target)[1:2], alone)


@pytest.mark.parametrize("error", ERRORS, ids=name)
def test_the_slope_is_finite_from_the_zeros_of_an_untrained_network_on(error):
    for output in (torch.zeros_like(TARGET), TARGET.clone()):
        output.requires_grad_(True)
        error(output, TARGET).sum().backward()
        assert output.grad.isfinite().all()
        assert output.grad.abs().max() < 100


def test_an_output_much_shorter_than_its_target_counts_as_a_tenth_of_it():
    short = VelocityDirection()(0.05 * TARGET, TARGET) - MSE()(0.05 * TARGET, TARGET)
    torch.testing.assert_close(short, torch.full((5,), 0.5, dtype=torch.float64))


def test_the_direction_alone_does_not_see_the_length():
    direction = VelocityDirection(MSE(), weight=1.0)
    longer = direction(3 * TARGET, TARGET) - MSE()(3 * TARGET, TARGET)
    torch.testing.assert_close(longer, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    opposite = direction(-TARGET, TARGET) - MSE()(-TARGET, TARGET)
    torch.testing.assert_close(opposite, torch.full((5,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=name)
def test_only_a_velocity_has_a_direction(prediction):
    if isinstance(prediction, Velocity):
        VelocityDirection().check(prediction)
        return
    with pytest.raises(ValueError, match=f"{name(prediction)} predicts none: use the prediction Velocity"):
        VelocityDirection().check(prediction)


def test_the_process_asks_the_error():
    with pytest.raises(ValueError, match="V predicts none"):
        Diffusion(Cosine(), V(), error=VelocityDirection())
    with pytest.raises(ValueError, match="V predicts none"):
        Diffusion(Cosine(), V(), error=VelocityDirection(VelocityDirection()))
    path, t = RectifiedFlow(), torch.full((5,), 0.4, dtype=torch.float64)
    diffusion = Diffusion(path, Velocity(), error=Huber(0.2))
    losses = diffusion.loss(lambda x_t, heard, cond: x_t, OUTPUT, t, TARGET, None)
    x_t = 0.6 * OUTPUT + 0.4 * TARGET
    torch.testing.assert_close(losses, Huber(0.2)(x_t, TARGET - OUTPUT))


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_sizes_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="choose a finite number over 0"):
        Huber(wrong)
    with pytest.raises(ValueError, match="choose a finite number over 0"):
        PseudoHuber(wrong)
    if wrong != 0:
        with pytest.raises(ValueError, match="at least 0"):
            VelocityDirection(weight=wrong)
