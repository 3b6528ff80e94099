import copy
from dataclasses import dataclass

import pytest
import torch
from diffusion_cases import PATHS, inner_times, name, normal
from torch import Tensor

from ldm.diffusion import Diffusion
from ldm.diffusion.objectives import LearnedUncertainty, Objective, Simple
from ldm.diffusion.paths import Cosine, RectifiedFlow
from ldm.diffusion.predictions import V, Velocity
from ldm.diffusion.timesteps import LossAware, Stratified
from ldm.diffusion.weightings import MinSNR

ZEROS = torch.zeros(64, 1, 1, dtype=torch.float64)


def error_sizes(heard: Tensor) -> Tensor:
    """Mean losses between 0.01 and 2 that depend on the noise level, heard as 1000 t."""
    return 0.01 + 2 * (heard / 1000) ** 2


def net(x_t: Tensor, heard: Tensor, cond: None) -> Tensor:
    return error_sizes(heard).sqrt()[:, None, None]


def test_trained_uncertainty_is_the_log_of_the_mean_loss_at_each_level():
    objective = LearnedUncertainty()
    diffusion = Diffusion(Cosine(), V(), objective=objective)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=500)
    t = torch.linspace(0.02, 0.98, 64, dtype=torch.float64)
    for _ in range(500):
        optimizer.zero_grad()
        diffusion.loss(net, ZEROS, t, ZEROS, None).mean().backward()
        optimizer.step()
        schedule.step()
    learned = objective.uncertainty(Cosine().logsnr(t)).exp().double()
    torch.testing.assert_close(learned, error_sizes(1000 * t), rtol=0.1, atol=0)
    balanced = diffusion.loss(net, ZEROS, t, ZEROS, None) - learned.log()  # loss / exp(u): 1 at every level
    torch.testing.assert_close(balanced, torch.ones(64, dtype=torch.float64), rtol=0.1, atol=0)


def test_the_formula():
    objective = LearnedUncertainty(channels=3)
    with torch.no_grad():
        objective.weight.copy_(torch.tensor([0.5, -1.0, 0.2]))
    path, t = RectifiedFlow(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x0, eps = normal(3, 2, 2, seed=1), normal(3, 2, 2, seed=2)
    plain = Diffusion(path, Velocity(), MinSNR()).loss(lambda x_t, heard, cond: x_t, x0, t, eps, None)
    both = Diffusion(path, Velocity(), MinSNR(), objective=objective)
    u = objective.uncertainty(path.logsnr(t)).double()
    expected = plain / u.exp() + u
    torch.testing.assert_close(both.loss(lambda x_t, heard, cond: x_t, x0, t, eps, None), expected)
    assert len(set(u.tolist())) == 3


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_it_starts_as_the_loss_itself_on_every_path(path):
    t = path.snap(inner_times(path, 9)).float()
    u = LearnedUncertainty().uncertainty(path.logsnr(t))
    assert torch.equal(u, torch.zeros(9))


def test_its_weights_are_the_processs_own_and_alike_in_every_run():
    one, other = (Diffusion(Cosine(), V(), objective=LearnedUncertainty()) for _ in range(2))
    assert [key for key, _ in one.named_parameters()] == ["objective.weight"]
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    assert copy.deepcopy(one).state_dict().keys() == one.state_dict().keys()


@dataclass
class Demanding(Objective):
    needs_variance = True
    is_bound = True

    def __call__(self, diffusion, example, output, variance):
        return output.flatten(1).mean(1)

    def check(self, diffusion):
        if isinstance(diffusion.path, Cosine):
            raise ValueError("not on Cosine")


def test_what_it_balances_has_its_say():
    objective = LearnedUncertainty(Demanding())
    assert objective.needs_variance
    assert objective.is_bound
    assert not LearnedUncertainty(Simple()).needs_variance
    with pytest.raises(ValueError, match="not on Cosine"):
        Diffusion(Cosine(), V(), objective=objective)


def test_losses_made_alike_are_of_no_use_to_a_law_that_learns_their_size():
    for law in (LossAware(), Stratified(LossAware())):
        with pytest.raises(ValueError, match="use UniformTimesteps"):
            Diffusion(RectifiedFlow(), Velocity(), timesteps=law, objective=LearnedUncertainty())


def test_no_features_are_refused():
    with pytest.raises(ValueError, match="128 is usual"):
        LearnedUncertainty(channels=0)
