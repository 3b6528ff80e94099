"""A network of another kind of block that starts from what a trained one says."""

import inspect

import torch
from torch import Tensor
from torch.nn.functional import silu

from ldm.networks.blocks.adaln_single import AdaLNSingle, AdaLNSingleBlock, AdaLNSingleHearing, TableHead
from ldm.networks.blocks.adaln_zero import AdaLNZero, AdaLNZeroBlock
from ldm.networks.blocks.head import AdaptiveHead
from ldm.networks.dit import DiT


@torch.no_grad()
def adaln_single_from(dit: DiT, vector: Tensor, noise_condition: float, block: AdaLNSingle) -> DiT:
    """A DiT with adaLN-single that starts from the outputs of one with adaLN-Zero: PixArt-alpha's re-parameterisation.

    At `noise_condition` the new network without a vector gives what `dit` gives with `vector`, whatever the tokens are:
    the table of each block is its own modulation less the shared one there (Chen et al. 2023, arXiv:2310.00426,
    section 2.3), and the cross-attention starts silent. At other noise levels the two differ, since one linear layer
    takes the place of one in each block: it is their mean, which has the least squared error. `vector` is heard by
    the embedding of the noise level from then on.

    Args:
        dit: with `AdaLNZero` blocks; it is left as it is.
        vector: (D,), what `dit` is to go on hearing: the embedding of "no class".
        noise_condition: where the two agree, as the path gives it: 500 of 1000 steps in the paper.
        block: the new kind.

    Raises:
        ValueError: `dit` has blocks of another kind, or `vector` another width.
    """
    if not isinstance(dit.block, AdaLNZero):
        raise ValueError(f"adaLN-single can start from AdaLNZero blocks, and these are {type(dit.block).__name__}.")
    if vector.shape != (dit.width,):
        raise ValueError(f"The vector to go on hearing is {tuple(vector.shape)} and must be ({dit.width},).")
    options = {name: getattr(dit, name) for name in inspect.signature(DiT).parameters}
    net = DiT(**{**options, "block": block}).to(dit.patch_embed.weight)
    fresh = net.state_dict()
    net.load_state_dict({**fresh, **{name: value for name, value in dit.state_dict().items() if name in fresh}})
    net.noise_embed.leave.bias.add_(vector)
    c = net.noise_embed(torch.tensor([noise_condition], device=vector.device))  # (1, D)
    share(dit, net, c)
    assert isinstance(dit.head, AdaptiveHead)
    assert isinstance(net.head, TableHead)
    net.head.table.copy_(dit.head.modulation(silu(c)).unflatten(1, (2, -1))[0] - c)
    return net


def share(dit: DiT, net: DiT, c: Tensor) -> None:
    """Set the shared modulation of `net` and each block's table so that at c (1, D) they add up to those of `dit`."""
    assert isinstance(net.hearing, AdaLNSingleHearing)
    shared = net.hearing.modulation
    each = [block.modulation for block in dit.blocks if isinstance(block, AdaLNZeroBlock)]
    shared.weight.copy_(torch.stack([own.weight for own in each]).mean(0))
    shared.bias.copy_(torch.stack([own.bias for own in each]).mean(0))
    for own, block in zip(each, net.blocks, strict=True):
        assert isinstance(block, AdaLNSingleBlock)
        block.table.copy_((own(silu(c)) - shared(silu(c))).unflatten(1, (6, -1))[0])
