"""adaLN-single that starts from a trained class-conditional adaLN-Zero."""

import pytest
import torch
from torch import nn

from ldm.conditioners import Label
from ldm.networks import Conditioning, DiT
from ldm.networks.blocks import AdaLN, AdaLNSingle
from ldm.networks.positions import Learned
from ldm.networks.reparameterise import adaln_single_from

SIZES = {"input_size": 8, "in_channels": 3, "patch_size": 2, "width": 16, "depth": 3, "num_heads": 2}
SWITCHES = {"rope": True, "swiglu": True, "qk_norm": True, "registers": 2, "long_skips": True, "positions": Learned()}


def trained(**options):
    """As after training: no weight is zero."""
    torch.manual_seed(0)
    net, label = DiT(**SIZES, **options), Label(10, 16)
    for parameter in (*net.parameters(), *label.parameters()):
        nn.init.normal_(parameter, std=0.2)
    return net.double(), label.double()


@pytest.mark.parametrize("options", [{}, {"learned_variance": True}, SWITCHES])
def test_it_starts_from_the_same_outputs_whatever_the_tokens_are(options):
    dit, label = trained(**options)
    none = label.embedding.weight[10].detach()
    single = adaln_single_from(dit, none, 500.0, AdaLNSingle(6))
    x, t = torch.randn(2, 3, 8, 8).double(), torch.full((2,), 500.0)
    expected = dit(x, t, Conditioning(vector=none.expand(2, -1)))
    for tokens in (torch.randn(2, 4, 6).double(), torch.zeros(2, 1, 6).double(), None):
        torch.testing.assert_close(single(x, t, Conditioning(tokens=tokens)), expected)
    assert not torch.allclose(single(x, t + 300, Conditioning()), expected)  # it still hears the noise level
    shared = single.hearing.modulation
    assert shared.weight.any()
    assert single.out_channels == dit.out_channels


def test_blocks_that_hear_alike_stay_equal_at_every_noise_level():
    """The shared layer is the mean over blocks: exact where they agree up to a constant. The head is exact at 500."""
    dit, label = trained()
    for block in dit.blocks:
        block.modulation.weight.data.copy_(dit.blocks[0].modulation.weight)
    none = label.embedding.weight[10].detach()
    single = adaln_single_from(dit, none, 500.0, AdaLNSingle())
    h = torch.randn(2, 16, 16).double()
    level = torch.tensor([20.0, 900.0]).double()
    c, context = single.hearing(single.noise_embed(level), Conditioning())
    torch.testing.assert_close(c, dit.noise_embed(level) + none)
    for old, new in zip(dit.blocks, single.blocks, strict=True):
        torch.testing.assert_close(new(h, c, context), old(h, c))


def test_the_trained_net_is_left_as_it_is():
    dit, label = trained()
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    single = adaln_single_from(dit, label.embedding.weight[10].detach(), 500.0, AdaLNSingle(6))
    with torch.no_grad():
        for parameter in single.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], tensor) for name, tensor in dit.state_dict().items())


def test_what_it_cannot_start_from_is_refused():
    with pytest.raises(ValueError, match="AdaLNZero blocks, and these are AdaLN"):
        adaln_single_from(trained(block=AdaLN())[0], torch.zeros(16), 500.0, AdaLNSingle())
    with pytest.raises(ValueError, match=r"is \(8,\) and must be \(16,\)"):
        adaln_single_from(trained()[0], torch.zeros(8), 500.0, AdaLNSingle())
